"""What the classes are called: by the job, else by the label map, else by Ground Truth's metadata."""

from __future__ import annotations

from container.artifact.classes import ClassEntry, called, describe_classes
from container.data.labels.class_names import known_classes
from container.data.labels.color_maps import ColorMap
from container.data.labels.label_maps import LabelMap
from container.data.samples import FileSamples

GROUND_TRUTH = ColorMap({0: "ground", 1: "car", 5: "tram"}, {0: (255, 255, 255), 1: (1, 2, 3), 5: (9, 9, 9)})


def classes(label_map: LabelMap, color_map: ColorMap | None = None) -> dict[int, ClassEntry]:
    samples = FileSamples("train", [], label_map)
    samples.color_map = color_map
    return known_classes(samples, 3)


def test_a_label_map_names_and_colors_its_labels() -> None:
    label_map = LabelMap(
        {"colors": {"#0a0b0c": 1, "#ffffff": 255, "#111111": 1}, "names": {"0": "road", "255": "void"}}
    )
    assert classes(label_map) == {0: ClassEntry("road", None), 1: ClassEntry(None, (10, 11, 12))}
    assert describe_classes(classes(label_map)) == [{"id": 0, "name": "road"}, {"id": 1, "color": "#0a0b0c"}]
    assert classes(LabelMap()) == {}


def test_ground_truths_ids_become_the_label_maps_labels() -> None:
    label_map = LabelMap({"map": {"0": 0, "2": 1}, "names": {"2": "vehicle"}})
    assert classes(label_map, GROUND_TRUTH) == {
        0: ClassEntry("ground", (255, 255, 255)),
        2: ClassEntry("vehicle", (1, 2, 3)),
    }


def test_the_jobs_own_names_go_before_all_others_and_leave_colors_alone() -> None:
    samples = FileSamples("train", [], LabelMap({"scale": 1, "names": {"1": "vehicle"}}))
    samples.color_map = GROUND_TRUTH
    assert known_classes(samples, 3, {1: "bus", 2: "sign"}) == {
        0: ClassEntry("ground", (255, 255, 255)),
        1: ClassEntry("bus", (1, 2, 3)),
        2: ClassEntry("sign", None),
    }


def test_without_any_name_a_class_is_called_by_its_id() -> None:
    assert called({}, 3) == "class 3"
    assert called({3: ClassEntry(None, (1, 2, 3))}, 3) == "class 3"
    assert called({3: ClassEntry("road")}, 3) == "road"
