"""What classes are called: as the job says, else its label map, else Ground Truth."""

from __future__ import annotations

import types
from typing import Any, cast

from container.classes import ClassEntry, called
from container.data.class_names import known_classes
from container.data.colours import ColourMap
from container.data.labels import LabelMap
from container.data.samples import Samples


def samples(names: dict[str, str], ground_truth: dict[int, str]) -> Samples:
    colour_map = ColourMap(ground_truth, {index: (index, 0, 9) for index in ground_truth}) if ground_truth else None
    content: dict[str, Any] = {"scale": 1, **({"names": names} if names else {})}
    return cast(Samples, types.SimpleNamespace(label_map=LabelMap(content), colour_map=colour_map))


def test_the_job_goes_before_the_label_map_and_that_before_ground_truth() -> None:
    given = samples({"1": "map 1", "2": "map 2"}, {2: "truth 2", 3: "truth 3"})
    assert known_classes(given, 5, {0: "job 0", 1: "job 1"}) == {
        0: ClassEntry("job 0"),
        1: ClassEntry("job 1"),
        2: ClassEntry("map 2", (2, 0, 9)),
        3: ClassEntry("truth 3", (3, 0, 9)),
    }


def test_without_any_a_class_is_called_by_its_id() -> None:
    known = known_classes(samples({}, {}), 5)
    assert known == {} and called(known, 3) == "class 3"
    assert called({3: ClassEntry(None, (1, 2, 3))}, 3) == "class 3"
    assert called({3: ClassEntry("road")}, 3) == "road"
