"""Split of labeled images into training and validation data, stratified by class."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from container.data.labels.decoding import IGNORE
from local_test.formats.regions import FormatError


def choose_validation(classes: Mapping[str, frozenset[int]], share: float) -> set[str]:
    """Choose about `share` of the groups for validation such that each class has its share there, too.

    `classes` maps groups to the values of their annotations. The algorithm is iterative stratification (Sechidis,
    Tsoumakas, and Vlahavas, 2011): the rarest class first, each group to the part that lacks most of it. The result
    depends only on the arguments.
    """
    shares = {True: share, False: 1 - share}  # by "belongs to validation"
    images = Counter(value for values in classes.values() for value in values)
    lacking = {part: {value: shares[part] * count for value, count in images.items()} for part in shares}
    size = {part: shares[part] * len(classes) for part in shares}
    left, chosen = dict(sorted(classes.items())), set[str]()
    while left:
        counts = Counter(value for values in left.values() for value in values)
        rarest = min(counts, key=lambda value: (counts[value], value), default=None)
        for name in [name for name, values in left.items() if rarest is None or rarest in values]:
            values = left.pop(name)
            needs = {part: (0 if rarest is None else lacking[part][rarest], size[part]) for part in shares}
            part = needs[True] > needs[False]
            if part:
                chosen.add(name)
            size[part] -= 1
            for value in values:
                lacking[part][value] -= 1
    return chosen


def group_images(pairs: Sequence[tuple[Path, Path]]) -> dict[str, list[tuple[Path, Path]]]:
    """Group pairs whose images have the same pixels, by a hash of the pixels."""
    groups: dict[str, list[tuple[Path, Path]]] = defaultdict(list)
    for pair in pairs:
        pixels = np.asarray(_open(pair[0]).convert("RGB"))
        groups[hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).hexdigest()].append(pair)
    return dict(groups)


def values_of(pairs: Sequence[tuple[Path, Path]]) -> frozenset[int]:
    """Return the values of annotations without 255: one number per value, index, or color."""
    values: set[int] = set()
    for _, annotation in pairs:
        pixels = np.asarray(_open(annotation)).astype(np.int64)
        if pixels.ndim == 3:
            pixels = pixels @ (1 << 8 * np.arange(pixels.shape[2]))
        values.update(np.unique(pixels).tolist())
    return frozenset(values - {IGNORE})


def _open(path: Path) -> Image.Image:
    """Open an image and decode its pixels; raises FormatError."""
    try:
        image: Image.Image = Image.open(path)
        image.load()
        return image
    except OSError as error:
        raise FormatError(f"{path} is not a readable image: {error}. Replace it, or remove the pair.") from error
