"""Configuration and operations of `_augmentation`."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np

from container.arrays import Array
from container.data.labels.decoding import IGNORE

MEAN_COLOR = (124, 116, 104)  # ImageNet's mean (.485, .456, .406) × 255

_MOST_HOLES = 8
_MOST_CROPS = 8  # sides of a crop that the region which is turned has at most
_GRAY = np.array([0.299, 0.587, 0.114], np.float32)  # luma of ITU-R BT.601


@dataclasses.dataclass(frozen=True)
class AugmentationConfig:
    """How much is done to a crop; as they stand here, no more than GluonCV does."""

    colour: float = 0.0  # brightness, contrast and saturation are multiplied by 1 ± so much
    rotation: float = 0.0  # degrees either way
    vertical_flip: float = 0.0  # probability
    scale: tuple[float, float] = (0.5, 2.0)  # of the long side, in base sizes
    dropout: float = 0.0  # share of the crop under holes, where they do not overlap


STRONG = AugmentationConfig(colour=0.4, rotation=15.0, vertical_flip=0.5, dropout=0.1)


def parse_augmentation(augmentation: str | Mapping[str, Any]) -> AugmentationConfig:
    """Return what `_augmentation` means: a name's strengths, or those given, the others as in `default`."""
    if isinstance(augmentation, str):
        return STRONG if augmentation == "strong" else AugmentationConfig()
    given = dict(augmentation)
    if "scale" in given:
        given["scale"] = tuple(given["scale"])
    return AugmentationConfig(**given)


def jitter(crop: Array, strength: float, rng: np.random.Generator) -> Array:
    """Change brightness, contrast and saturation of a uint8 RGB crop, each by a factor 1 ± `strength` at most."""
    brightness, contrast, saturation = rng.uniform(1 - strength, 1 + strength, 3)
    pixels = crop.astype(np.float32) * np.float32(brightness)
    mean = float((pixels @ _GRAY).mean())
    pixels = mean + (pixels - mean) * np.float32(contrast)
    gray = (pixels @ _GRAY)[..., None]
    return np.asarray(np.clip(np.rint(gray + (pixels - gray) * np.float32(saturation)), 0, 255).astype(np.uint8))


def hide(crop: Array, labels: Array, share: float, rng: np.random.Generator) -> tuple[Array, Array]:
    """Cover one to eight squares, `share` of the crop in all, with the mean colour; their pixels are ignored."""
    crop, labels = crop.copy(), labels.copy()
    size = len(labels)
    count = int(rng.integers(1, _MOST_HOLES + 1))
    side = min(size, max(1, round(size * math.sqrt(share / count))))
    for top, left in rng.integers(0, size - side + 1, (count, 2)):
        hole = slice(top, top + side), slice(left, left + side)
        crop[hole], labels[hole] = MEAN_COLOR, IGNORE
    return crop, labels


def rotated_crop(
    image: Array,
    labels: Array,
    span: tuple[slice, slice],
    scale: float,
    anchor: tuple[int, int] | None,
    degrees: float,
    crop_size: int,
) -> tuple[Array, Array]:
    """Scale the region `span` (rows, columns) to a square crop, turned about `anchor` (row, column) or its centre.

    What comes in at the corners is the image around the region; where there is none, the mean colour, labelled 255.
    """
    turn = math.radians(degrees)
    turn = math.radians(degrees)
    reach = math.ceil((abs(math.sin(turn)) + 1 - abs(math.cos(turn))) * crop_size / scale)
    outer = [
        slice(max(0, part.start - reach), min(labels.shape[axis], part.stop + reach)) for axis, part in enumerate(span)
    ]
    longest = max(around.stop - around.start for around in outer)
    first = min(scale, _MOST_CROPS * crop_size / longest)  # a few pixels enlarged to a crop would be a huge picture
    before, after, sizes = [], [], []
    for axis, (part, around) in enumerate(zip(span, outer, strict=True)):
        length = part.stop - part.start
        place = (anchor[axis] + 0.5) if anchor else part.start + length / 2
        size = max(1, round((around.stop - around.start) * first))
        sizes.append(size)
        before.append((place - around.start) * size / (around.stop - around.start) - 0.5)
        after.append((place - part.start) * scale - 0.5 + max(0.0, crop_size - length * scale) / 2)
    matrix: Array = cv2.getRotationMatrix2D((before[1], before[0]), degrees, scale / first)
    matrix[0, 2] += after[1] - before[1]
    matrix[1, 2] += after[0] - before[0]
    target, smaller = (sizes[1], sizes[0]), cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    pixels = cv2.resize(image[tuple(outer)], target, interpolation=smaller)
    classes = cv2.resize(labels[tuple(outer)], target, interpolation=cv2.INTER_NEAREST_EXACT)
    square = (crop_size, crop_size)
    return (
        cv2.warpAffine(pixels, matrix, square, flags=cv2.INTER_LINEAR, borderValue=MEAN_COLOR),
        cv2.warpAffine(classes, matrix, square, flags=cv2.INTER_NEAREST, borderValue=(IGNORE,)),
    )
