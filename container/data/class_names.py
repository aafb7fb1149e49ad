"""What the data say their classes are called, and in which colours they come."""

from __future__ import annotations

from collections.abc import Mapping

from container.classes import ClassEntry
from container.data.reading import IGNORE
from container.data.samples import Samples


def known_classes(samples: Samples, num_classes: int, chosen: Mapping[int, str] | None = None) -> dict[int, ClassEntry]:
    """Describe the classes of a channel, ascending by id.

    They are called as `chosen` says (the hyperparameter _class_names), else as the channel's label map does, else as
    Ground Truth's metadata does; colours come from the latter two.
    Ground Truth's ids are pixel values, which the label map may turn into other labels.
    """
    label_map = samples.label_map
    names, colours = {**label_map.names, **(chosen or {})}, dict(label_map.class_colours)
    if samples.colour_map:
        for index, name in samples.colour_map.names.items():
            if (label := label_map.label_of(index, num_classes)) != IGNORE:
                names.setdefault(label, name)
                colours.setdefault(label, samples.colour_map.colours[index])
    known = sorted({*names, *colours} - {IGNORE})
    return {label: ClassEntry(names.get(label), colours.get(label)) for label in known}
