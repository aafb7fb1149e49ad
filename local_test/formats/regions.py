"""Labeled regions of images, and their masks."""

from __future__ import annotations

import dataclasses
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco

from container.arrays import Uint8Array
from container.data.labels.decoding import IGNORE

BACKGROUND = 0
MAX_CLASSES = 254
_MAX_COORDINATE = 1_000_000
UNLABELED = {"__ignore__": IGNORE, "_background_": BACKGROUND}  # the names that LabelMe's own converter uses


class FormatError(ValueError):
    """The annotations cannot be read. The text names the file and the problem, then the fix."""


@dataclasses.dataclass
class Notes:
    """What the readers skipped or decided, counted by its description."""

    counts: Counter[str] = dataclasses.field(default_factory=Counter)
    overlapping_pixels: int = 0
    overlapping_images: int = 0

    def lines(self) -> list[str]:
        """Return one sentence per kind of note."""
        lines = [f"Skipped {count} {kind}." for kind, count in sorted(self.counts.items())]
        if self.overlapping_images:
            lines.append(
                f"{self.overlapping_pixels} pixels of {self.overlapping_images} images have annotations of several "
                "classes. They have the class of the last annotation."
            )
        return lines


@dataclasses.dataclass(frozen=True)
class LabeledImage:
    """An image file and its regions in drawing order: pairs of a class name and a mask, uint8 (H, W) of 0 and 1."""

    path: Path
    size: tuple[int, int]  # height, width
    regions: Iterable[tuple[str, Uint8Array]]


@dataclasses.dataclass(frozen=True)
class Dataset:
    """The class names in the order of their IDs (1 is the first), and the images."""

    names: Sequence[str]
    images: Iterator[LabeledImage]


def draw(image: LabeledImage, ids: Mapping[str, int], notes: Notes) -> Uint8Array:
    """Return the class IDs of an image, uint8 (H, W). Later regions replace earlier ones; `notes` counts the pixels."""
    labels = np.zeros(image.size, np.uint8)
    is_drawn, is_overlapping = np.zeros(image.size, bool), np.zeros(image.size, bool)
    for name, mask in image.regions:
        region = mask.astype(bool)
        label = UNLABELED[name] if name in UNLABELED else ids[name]
        is_overlapping |= region & is_drawn & (labels != label)
        is_drawn |= region
        labels[region] = label
    notes.overlapping_pixels += int(is_overlapping.sum())
    notes.overlapping_images += bool(is_overlapping.any())
    return labels


def read_json(path: Path) -> Any:
    """Read a JSON file in UTF-8; raises FormatError."""
    try:
        return json.loads(path.read_text("utf-8-sig"))
    except (OSError, ValueError) as error:
        raise FormatError(f"{path} is not readable as JSON: {error}. Export it again.") from error


def check_names(names: Sequence[str], origin: Path) -> Sequence[str]:
    """Return the class names; raises FormatError if they are no classes for a training job."""
    if not names:
        raise FormatError(f"{origin} contains no labels. Label at least one object.")
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise FormatError(f"{origin} contains several classes named {twice[0]}. Rename all but one.")
    if len(names) >= MAX_CLASSES:
        raise FormatError(f"{origin} contains {len(names)} classes. Reduce them to {MAX_CLASSES - 1}.")
    return names


def fill(polygons: list[list[float]], size: tuple[int, int]) -> Uint8Array:
    """Fill the union of polygons, each x, y, x, y, …, in pixels, as COCO does. Fewer than 3 corners have no area.

    Raises ValueError for coordinates with which pycocotools crashes or needs all memory.
    """
    for points in polygons:
        if len(points) % 2 or not (np.abs(np.asarray(points, float)) <= _MAX_COORDINATE).all():  # also false for NaN
            raise ValueError(f"a polygon has a corner without two numbers from -{_MAX_COORDINATE} to {_MAX_COORDINATE}")
    polygons = [points for points in polygons if len(points) >= 6]
    if not polygons:
        return np.zeros(size, np.uint8)
    mask: Uint8Array = coco.decode(coco.merge(coco.frPyObjects(polygons, *size)))
    return mask


def rectangle(x: float, y: float, other_x: float, other_y: float) -> list[float]:
    """Return the polygon of a rectangle from two opposite corners."""
    return [x, y, other_x, y, other_x, other_y, x, other_y]


def rotate(polygon: list[float], degrees: float) -> list[float]:
    """Return a polygon that is rotated clockwise about the mean of its corners."""
    angle, corners = math.radians(degrees), np.reshape(polygon, (-1, 2))
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    center = corners.mean(axis=0)
    rotated: list[float] = ((corners - center) @ turn + center).ravel().tolist()
    return rotated


def ellipse(x: float, y: float, horizontal: float, vertical: float) -> list[float]:
    """Return a polygon of 128 corners on an ellipse, from its center and its half axes."""
    angles = [2 * math.pi * step / 128 for step in range(128)]
    return [value for angle in angles for value in (x + horizontal * math.cos(angle), y + vertical * math.sin(angle))]


def place(part: Uint8Array, top: int, left: int, size: tuple[int, int]) -> Uint8Array:
    """Return a mask, uint8 (H, W), with `part` (h, w) at a position, cut off at the border of the image."""
    mask = np.zeros(size, np.uint8)
    part = part[max(0, -top) :, max(0, -left) :][: size[0] - max(0, top), : size[1] - max(0, left)]
    mask[max(0, top) :, max(0, left) :][: part.shape[0], : part.shape[1]] = part != 0
    return mask
