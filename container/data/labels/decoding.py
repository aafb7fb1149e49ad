"""Reading of one annotation through its label map."""

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

_EXACT = 2**24  # what OpenCV counts in float32 without an error


class UnmappedColorsError(ClientError):
    """An annotation is in colors, and nothing says what they mean; `colors` counts the pixels of the commonest."""

    def __init__(self, colors: Mapping[int, int], num_classes: int) -> None:
        super().__init__(f"the annotation is in colors, not class IDs. {suggest_color_map(colors, num_classes)}")
        self.colors = colors


Meaning = tuple[Array, Array, Array]  # labels, unnamed and wrong, of as many values


@dataclasses.dataclass(frozen=True)
class DecodedLabels:
    """One annotation as a label map reads it: what each of its values means, and where the values are.

    `places`, integer (H, W), are indices into the other arrays, (n,): `values`, the ids or colors (0xrrggbb, −1: any
    other) that pixels can have; `labels`, uint8, 255 = ignore; `unnamed`: the map says nothing of the value; `wrong`:
    its label is no class. `bits` is the depth of a gray annotation, `how` says which of its meanings was chosen, see
    `container.data.labels.depths`, and `numbers` are what is stored for `values`, if that differs.
    """

    places: Array
    values: Array
    labels: Array
    unnamed: Array
    wrong: Array
    is_color: bool = False
    repaired: Array | None = None  # bool (n,): Ground Truth's colors give another id than the pixel's
    bits: int | None = None
    how: Literal["alike", "numbers", "shades", "either"] = "alike"
    numbers: Array | None = None

    @property
    def stored(self) -> Array:
        """The numbers in the file, int64 (n,)."""
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
        """How many pixels are ignored because the map does not name their value."""
        return int(self.counts[self.unnamed].sum()) if self.unnamed.any() else 0

    def count_values(self, which: Array | None = None) -> dict[int, int]:
        """Count the pixels of each value that is there, or of those that `which`, bool (n,), names."""
        present = np.flatnonzero(self.counts if which is None else self.counts * which)
        return dict(zip(self.values[present].tolist(), self.counts[present].tolist(), strict=True))

    def count_others(self) -> dict[int, int]:
        """Count the pixels of the most frequent colors that are none of `values`."""
        return {} if self.others is None else count_colors(self.others)

    def check(self, num_classes: int) -> None:
        """Raise ClientError with the first value that is there and whose label is no class."""
        if self.wrong.any() and (wrong := self.count_values(self.wrong)):
            raise ClientError(
                f"pixel value {min(wrong)} is no class: num_classes is {num_classes}; raise num_classes, mark such "
                "pixels 255 (ignore), or give a label map"
            )

    def image(self) -> Array:
        """Return the labels, uint8 (H, W)."""
        if self.places.dtype == np.uint8 and len(self.labels) == 256:
            return cv2.LUT(self.places, self.labels)
        labels: Uint8Array = self.labels[self.places]
        return labels


def read_colors(codes: Array, known: Array, labels: Array, unnamed: Array, wrong: Array) -> DecodedLabels:
    """Look colors up among the known ones; what is none of them is unnamed."""
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


def settle(labels: Array, unnamed: Array, num_classes: int) -> Meaning:
    """Tell which labels (int64) are no class, and make 255 of them."""
    wrong = (labels >= num_classes) & (labels != IGNORE)
    return np.where(wrong, IGNORE, labels).astype(np.uint8), unnamed, wrong
