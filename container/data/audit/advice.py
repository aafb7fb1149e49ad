"""Suggested label maps and settings for pixel values that are not valid class IDs."""

from __future__ import annotations

import json
from collections.abc import Collection

from container.data.labels.color_maps import FILES

_IGNORE = 255
_DIVISORS = (1000, 256)  # class × 1000 + instance (Cityscapes, KITTI-MOTS), class × 256 + instance (Mapillary)
_LISTED = 48  # values of a label map within one sentence

# Cityscapes: the label ID of each train ID
_CITYSCAPES = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
_CITYSCAPES_IDS = range(34)


def advise_known_values(values: Collection[int], num_classes: int) -> str:
    """Return the fix for values of a known kind, as text that starts with a period; empty for other values.

    `values` contains the pixel values of all annotations.
    """
    ids = sorted(value for value in values if value != _IGNORE)
    if not ids or max(ids) < num_classes:
        return ""
    return _instances(ids, num_classes) or _cityscapes(ids, num_classes) or _no_data(ids, num_classes)


def _instances(ids: list[int], num_classes: int) -> str:
    """Recognize 16-bit values that contain a class and an instance."""
    large = {divisor: [value for value in ids if value >= divisor] for divisor in _DIVISORS if ids[-1] >= divisor}
    if not large:
        return ""
    divisor = min(large, key=lambda divisor: max(value % divisor for value in large[divisor]) / divisor)
    classes: dict[int, list[int]] = {}
    for value in ids:
        classes.setdefault(value // divisor if value >= divisor else value, []).append(value)
    if max(classes) > _IGNORE or len(classes) == len(ids) or len(large[divisor]) == 1:
        return ""
    kind = f". These values look like class × {divisor} + instance"
    if max(classes) >= num_classes:
        return f"{kind}, with class IDs up to {max(classes)}. Set num_classes to at least {max(classes) + 1}"
    if all(value == 0 or value >= divisor for value in ids):
        return f'{kind}. Put {{"scale": {divisor}}} into {FILES}'
    if len(ids) <= _LISTED:
        entries = {str(label): each if each[1:] else each[0] for label, each in sorted(classes.items())}
        return f"{kind}. Put {json.dumps({'map': entries})} into {FILES}"
    return f"{kind}. Save value // {divisor} for each value of {divisor} or more"


def _cityscapes(ids: list[int], num_classes: int) -> str:
    """Recognize the label IDs of Cityscapes if the job has its 19 training classes."""
    if num_classes != len(_CITYSCAPES) or ids[-1] not in _CITYSCAPES_IDS or len(set(ids) & set(_CITYSCAPES)) < 3:
        return ""
    entries = {str(label): value for label, value in enumerate(_CITYSCAPES)}
    return f". For the label IDs of Cityscapes, put {json.dumps({'map': entries})} into {FILES}"


def _no_data(ids: list[int], num_classes: int) -> str:
    """Recognize class IDs that start at 1, with 0 for pixels without data, or without 0."""
    if ids[0] > 1 or ids[-1] != num_classes:
        return ""
    entries = {str(value - 1): value for value in range(1, num_classes + 1)}
    if ids[0] == 1:
        return f". If class IDs start at 1, put {json.dumps({'map': entries})} into {FILES}"
    return (
        f'. If 0 means "no data" or "not labeled", put {json.dumps({"map": entries})} into {FILES}, which ignores 0. '
        f"If 0 is a class, set num_classes to {num_classes + 1}"
    )
