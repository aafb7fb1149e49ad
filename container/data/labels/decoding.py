"""The result of applying a label map to one annotation."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Literal

import cv2
import numpy as np

from container.arrays import Array, Uint8Array
from container.data.labels.color_maps import color_places, count_colors
from container.data.labels.color_schemes import suggest_color_map
from container.errors import ClientError

IGNORE = 255
INVALID_VALUE_FIX = "Increase num_classes, set such pixels to 255 (ignore), or add a label map"

_EXACT = 2**24  # pixels that OpenCV counts in float32 without an error


class UnmappedColorsError(ClientError):
    """An annotation has colors without a known meaning. `colors` contains pixel counts of the most common colors."""

    def __init__(self, colors: Mapping[int, int], num_classes: int) -> None:
        super().__init__(f"the annotation is in colors, not class IDs. {suggest_color_map(colors, num_classes)}")
        self.colors = colors


Meaning = tuple[Array, Array, Array]  # labels, unnamed, and wrong, each with one entry per value


@dataclasses.dataclass(frozen=True)
class DecodedLabels:
    """Labels of one annotation, by its values.

    `places`, integer (H, W), contains indices into the other arrays, which have shape (n,):

    - `values`: the class IDs or colors (0xrrggbb, or −1 for all other colors) that pixels can have.
    - `labels`, uint8: 255 = ignore.
    - `unnamed`: whether the label map does not contain the value.
    - `wrong`: whether the label is not a valid class ID.

    `bits` is the bit depth of a gray annotation, and `how` the interpretation of its values, see
    `container.data.labels.depths`. `numbers` contains the stored values if `values` differ from them.
    """

    places: Array
    values: Array
    labels: Array
    unnamed: Array
    wrong: Array
    is_color: bool = False
    repaired: Array | None = None  # bool (n,): whether the Ground Truth colors correct the pixel value
    bits: int | None = None
    how: Literal["alike", "numbers", "shades", "either"] = "alike"
    numbers: Array | None = None

    @property
    def stored(self) -> Array:
        """The values that are stored in the file, int64 (n,)."""
        return self.values if self.numbers is None else self.numbers

    others: Array | None = None  # the colors (0xrrggbb) of the pixels whose value is −1

    @functools.cached_property
    def counts(self) -> Array:
        """Pixels of each value, int64 (n,)."""
        if self.places.dtype == np.uint8 and self.places.size < _EXACT:
            histogram = cv2.calcHist([self.places], [0], None, [256], [0, 256])
            return histogram[: len(self.values), 0].astype(np.int64)
        return np.bincount(self.places.ravel(), minlength=len(self.values))

    @property
    def label_counts(self) -> Array:
        """Pixels of each label, int64 (256,)."""
        return np.bincount(self.labels, self.counts, 256).astype(np.int64)

    @property
    def ignored(self) -> int:
        """Number of pixels that are ignored because the label map does not contain their value."""
        return int(self.counts[self.unnamed].sum()) if self.unnamed.any() else 0

    def count_values(self, which: Array | None = None) -> dict[int, int]:
        """Return the number of pixels per value, of all values that occur or of those in `which`, bool (n,)."""
        present = np.flatnonzero(self.counts if which is None else self.counts * which)
        return dict(zip(self.values[present].tolist(), self.counts[present].tolist(), strict=True))

    def count_others(self) -> dict[int, int]:
        """Return the pixel counts of the most frequent colors that are not in `values`."""
        return {} if self.others is None else count_colors(self.others)

    def check(self, num_classes: int) -> None:
        """Raise ClientError with the lowest value whose label is not a valid class ID, if there is one."""
        if self.wrong.any() and (wrong := self.count_values(self.wrong)):
            raise ClientError(
                f"pixel value {min(wrong)} is not a valid class ID (num_classes is {num_classes}). {INVALID_VALUE_FIX}"
            )

    def image(self) -> Array:
        """Return the labels, uint8 (H, W)."""
        if self.places.dtype == np.uint8 and len(self.labels) == 256:
            return cv2.LUT(self.places, self.labels)
        labels: Uint8Array = self.labels[self.places]
        return labels


def read_colors(codes: Array, known: Array, labels: Array, unnamed: Array, wrong: Array) -> DecodedLabels:
    """Find the label of each color; colors that are not in `known` are unnamed."""
    places = color_places(codes, tuple(known.tolist()))
    is_other = places == len(known)
    return DecodedLabels(
        places,
        np.append(known, -1),
        np.append(labels, np.uint8(IGNORE)),
        np.append(unnamed, True),
        np.append(wrong, False),
        is_color=True,
        others=codes[is_other] if is_other.any() else None,
    )


def validate_labels(labels: Array, unnamed: Array, num_classes: int) -> Meaning:
    """Replace invalid labels (int64) by 255, and return which ones are invalid."""
    wrong = (labels >= num_classes) & (labels != IGNORE)
    return np.where(wrong, IGNORE, labels).astype(np.uint8), unnamed, wrong
