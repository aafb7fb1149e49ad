"""Blended windows for large images.

Such a network's answers cannot be put together exactly, as tiles can: in the overlaps the windows' probabilities are
blended, each with a weight that falls linearly towards its edges, so that there is no seam. A window as large as the
image gives the image's own answer, bit by bit.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator

import numpy as np

from container.arrays import Array, Float32Array, Uint8Array
from container.geometry.tiles import padded_pixels

_FLOAT = 4  # bytes


@dataclasses.dataclass(frozen=True)
class Windows:
    """Squares of `side` pixels that share at least the part `overlap` with the next; shorter images have their own."""

    side: int
    overlap: float

    def divide(self, height: int, width: int) -> bool:
        """Say whether an image has more than one window."""
        return max(height, width) > self.side

    def count(self, length: int) -> int:
        """Return how many windows there are along an axis."""
        stride = max(1, math.floor(self.side * (1 - self.overlap)))
        return -(-max(0, length - self.side) // stride) + 1

    def starts(self, length: int) -> list[int]:
        """Return where the windows along an axis begin: evenly spread, from the first pixel to the last."""
        last = self.count(length) - 1
        return [number * (length - self.side) // last for number in range(last + 1)] if last else [0]

    def pixels(self, height: int, width: int) -> int:
        """Return how many pixels the network sees of an image, those in overlaps more than once.

        Without listing the windows: whoever looks for the largest image that fits asks for a row of 2**28 pixels.
        """
        return self.count(height) * self.count(width) * self.largest(height, width)

    def largest(self, height: int, width: int) -> int:
        """Return how many pixels the network computes at once, partial cells in full."""
        return padded_pixels(min(height, self.side), min(width, self.side))

    def memory(self, num_classes: int, height: int, width: int) -> int:
        """Return how many bytes blending takes: a row of windows, the newest of them, and the likeliest classes."""
        rows = min(height, self.side)
        return _FLOAT * rows * ((num_classes + 2) * width + (num_classes + 1) * min(width, self.side))

    def blend(
        self, compute: Callable[[Uint8Array], Array], image: Uint8Array, num_classes: int
    ) -> Iterator[tuple[slice, Float32Array]]:
        """Give the probabilities of an image (H, W, 3), band by band of rows.

        `compute` returns those of a window: uint8 (h, w, 3) to float32 (num_classes, h, w). Each band is the slice of
        its rows and its probabilities (num_classes, rows, W), which are valid until the next.
        """
        height, width = image.shape[:2]
        tops, lefts = self.starts(height), self.starts(width)
        down, across = self._weights(tops, height), self._weights(lefts, width)
        band = np.zeros((num_classes, len(down[0]), width), np.float32)
        for top, until, share in zip(tops, [*tops[1:], height], down, strict=True):
            for left, other in zip(lefts, across, strict=True):
                columns, weights = slice(left, left + len(other)), share[:, None] * other
                found = compute(image[top : top + len(share), columns])
                for sums, scores in zip(band, found, strict=True):  # class by class: no second copy of all is held
                    sums[:, columns] += scores * weights
            done = until - top
            yield slice(top, until), band[:, :done]
            for sums in band:
                sums[: len(share) - done] = sums[done:].copy()
                sums[len(share) - done :] = 0

    def _weights(self, starts: list[int], length: int) -> list[Float32Array]:
        """Return each window's weights along an axis, which add up to one at every pixel."""
        side = min(length, self.side)
        ramp = np.minimum(np.arange(1, side + 1), np.arange(side, 0, -1)).astype(np.float64)
        total = np.zeros(length)
        for start in starts:
            total[start : start + side] += ramp
        return [(ramp / total[start : start + side]).astype(np.float32) for start in starts]


def likeliest(scores: Array) -> Uint8Array:
    """Return the class of the highest score at every pixel, the first of several: (num_classes, H, W) to uint8 (H, W).

    NumPy's argmax copies all scores before it compares them.
    """
    best, mask = scores[0].copy(), np.zeros(scores.shape[1:], np.uint8)
    for label, found in enumerate(scores[1:], 1):
        mask[found > best] = label
        np.maximum(best, found, out=best)
    return mask
