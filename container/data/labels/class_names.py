"""Class names and colors from the data."""

from __future__ import annotations

from collections.abc import Mapping

from container.artifact.classes import ClassEntry
from container.data.labels.decoding import IGNORE
from container.data.samples import Samples


def known_classes(samples: Samples, num_classes: int, chosen: Mapping[int, str] | None = None) -> dict[int, ClassEntry]:
    """Describe the classes of a channel, ascending by id.

    They are called as `chosen` says (the hyperparameter _class_names), else as the channel's label map does, else as
    Ground Truth's metadata does; colors come from the latter two.
    Ground Truth's ids are pixel values, which the label map may turn into other labels.
    """
    label_map = samples.label_map
    names, colors = {**label_map.names, **(chosen or {})}, dict(label_map.class_colors)
    if samples.color_map:
        for index, name in samples.color_map.names.items():
            if (label := label_map.label_of(index, num_classes)) != IGNORE:
                names.setdefault(label, name)
                colors.setdefault(label, samples.color_map.colors[index])
    known = sorted({*names, *colors} - {IGNORE})
    return {label: ClassEntry(names.get(label), colors.get(label)) for label in known}
