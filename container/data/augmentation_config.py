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

MEAN_COLOR = (124, 116, 104)  # mean of ImageNet, (.485, .456, .406) × 255

_MOST_SQUARES = 8
_MOST_CROPS = 8  # maximum side of the region that is rotated, in crop sides
_GRAY = np.array([0.299, 0.587, 0.114], np.float32)  # luma of ITU-R BT.601


@dataclasses.dataclass(frozen=True)
class AugmentationConfig:
    """Strengths of the augmentation. The defaults are those of GluonCV."""

    color: float = 0.0  # maximum relative change of brightness, contrast, and saturation
    rotation: float = 0.0  # maximum degrees in both directions
    vertical_flip: float = 0.0  # probability
    scale: tuple[float, float] = (0.5, 2.0)  # range of the long side, in base sizes
    dropout: float = 0.0  # share of the crop that is masked, if the squares do not overlap


STRONG = AugmentationConfig(color=0.4, rotation=15.0, vertical_flip=0.5, dropout=0.1)


def parse_augmentation(augmentation: str | Mapping[str, Any]) -> AugmentationConfig:
    """Return the configuration for a value of `_augmentation`: a name, or an object whose other keys have defaults."""
    if isinstance(augmentation, str):
        return STRONG if augmentation == "strong" else AugmentationConfig()
    values = {"color" if name == "colour" else name: value for name, value in augmentation.items()}
    if "scale" in values:
        values["scale"] = tuple(values["scale"])
    return AugmentationConfig(**values)


def jitter(crop: Array, strength: float, rng: np.random.Generator) -> Array:
    """Change brightness, contrast, and saturation of a uint8 RGB crop by random factors of 1 ± `strength`."""
    brightness, contrast, saturation = rng.uniform(1 - strength, 1 + strength, 3)
    pixels = crop.astype(np.float32) * np.float32(brightness)
    mean = float((pixels @ _GRAY).mean())
    pixels = mean + (pixels - mean) * np.float32(contrast)
    gray = (pixels @ _GRAY)[..., None]
    return np.asarray(np.clip(np.rint(gray + (pixels - gray) * np.float32(saturation)), 0, 255).astype(np.uint8))


def mask_squares(crop: Array, labels: Array, share: float, rng: np.random.Generator) -> tuple[Array, Array]:
    """Set 1 to 8 squares, in total `share` of the crop, to the mean color, and their labels to 255."""
    crop, labels = crop.copy(), labels.copy()
    size = len(labels)
    count = int(rng.integers(1, _MOST_SQUARES + 1))
    side = min(size, max(1, round(size * math.sqrt(share / count))))
    for top, left in rng.integers(0, size - side + 1, (count, 2)):
        square = slice(top, top + side), slice(left, left + side)
        crop[square], labels[square] = MEAN_COLOR, IGNORE
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
    """Scale the region `span` (rows, columns) to a square crop, rotated around `anchor` (row, column) or its center.

    The corners contain the image around the region. Outside of the image, they have the mean color and the label 255.
    """
    angle = math.radians(degrees)
    reach = math.ceil((abs(math.sin(angle)) + 1 - abs(math.cos(angle))) * crop_size / scale)
    outer = [
        slice(max(0, part.start - reach), min(labels.shape[axis], part.stop + reach)) for axis, part in enumerate(span)
    ]
    longest = max(around.stop - around.start for around in outer)
    first = min(scale, _MOST_CROPS * crop_size / longest)  # to enlarge a few pixels to a crop needs too much memory
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
    target, interpolation = (sizes[1], sizes[0]), cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    pixels = cv2.resize(image[tuple(outer)], target, interpolation=interpolation)
    classes = cv2.resize(labels[tuple(outer)], target, interpolation=cv2.INTER_NEAREST_EXACT)
    square = (crop_size, crop_size)
    return (
        cv2.warpAffine(pixels, matrix, square, flags=cv2.INTER_LINEAR, borderValue=MEAN_COLOR),
        cv2.warpAffine(classes, matrix, square, flags=cv2.INTER_NEAREST, borderValue=(IGNORE,)),
    )
