"""Class names and colors from the data."""

from __future__ import annotations

from collections.abc import Mapping

from container.artifact.classes import ClassEntry
from container.data.labels.decoding import IGNORE
from container.data.samples import Samples


def known_classes(samples: Samples, num_classes: int, chosen: Mapping[int, str] | None = None) -> dict[int, ClassEntry]:
    """Return the names and colors of the classes of a channel, sorted by class ID.

    The first source with a name is used: `chosen` (the hyperparameter `_class_names`), the label map of the channel, or
    the Ground Truth metadata. Colors come from the label map or the metadata. The IDs in the metadata are pixel values,
    which the label map can map to other labels.
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
