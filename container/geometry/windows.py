"""Blended windows for large images.

The output of models with global pooling cannot be combined exactly from parts. In the overlaps, the probabilities of
the windows are blended with weights that decrease linearly toward the edges, so there are no visible seams. With a
window as large as the image, the output is identical to processing the full image.
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
    """Square windows of `side` pixels. Adjacent windows share at least the fraction `overlap` of their side.

    Along an axis on which the image is shorter than `side`, the window has the length of the image.
    """

    side: int
    overlap: float

    def divide(self, height: int, width: int) -> bool:
        """Return whether an image has more than one window."""
        return max(height, width) > self.side

    def count(self, length: int) -> int:
        """Return how many windows there are along an axis."""
        stride = max(1, math.floor(self.side * (1 - self.overlap)))
        return -(-max(0, length - self.side) // stride) + 1

    def starts(self, length: int) -> list[int]:
        """Return the first pixel of each window along an axis. The windows are evenly spaced and cover the axis."""
        last = self.count(length) - 1
        return [number * (length - self.side) // last for number in range(last + 1)] if last else [0]

    def pixels(self, height: int, width: int) -> int:
        """Return how many pixels the model processes for an image. Pixels in overlaps count once per window.

        The windows are not listed, because the search for the largest possible image asks for a row of 2**28 pixels.
        """
        return self.count(height) * self.count(width) * self.largest(height, width)

    def largest(self, height: int, width: int) -> int:
        """Return the number of pixels in the largest window, with partial cells in full."""
        return padded_pixels(min(height, self.side), min(width, self.side))

    def memory(self, num_classes: int, height: int, width: int) -> int:
        """Return the bytes for blending: a row of windows, the current window, and the most likely classes."""
        rows = min(height, self.side)
        return _FLOAT * rows * ((num_classes + 2) * width + (num_classes + 1) * min(width, self.side))

    def blend(
        self, compute: Callable[[Uint8Array], Array], image: Uint8Array, num_classes: int
    ) -> Iterator[tuple[slice, Float32Array]]:
        """Yield the probabilities of an image (H, W, 3) in bands of rows.

        `compute` returns the probabilities of a window: uint8 (h, w, 3) to float32 (num_classes, h, w). Each band is a
        slice of rows and the probabilities (num_classes, rows, W). They are valid until the next band.
        """
        height, width = image.shape[:2]
        tops, lefts = self.starts(height), self.starts(width)
        down, across = self._weights(tops, height), self._weights(lefts, width)
        band = np.zeros((num_classes, len(down[0]), width), np.float32)
        for top, until, share in zip(tops, [*tops[1:], height], down, strict=True):
            for left, other in zip(lefts, across, strict=True):
                columns, weights = slice(left, left + len(other)), share[:, None] * other
                output = compute(image[top : top + len(share), columns])
                for sums, scores in zip(band, output, strict=True):  # class by class, to avoid a second copy
                    sums[:, columns] += scores * weights
            done = until - top
            yield slice(top, until), band[:, :done]
            for sums in band:
                sums[: len(share) - done] = sums[done:].copy()
                sums[len(share) - done :] = 0

    def _weights(self, starts: list[int], length: int) -> list[Float32Array]:
        """Return the weights of each window along an axis. The weights of all windows add up to 1 at every pixel."""
        side = min(length, self.side)
        ramp = np.minimum(np.arange(1, side + 1), np.arange(side, 0, -1)).astype(np.float64)
        total = np.zeros(length)
        for start in starts:
            total[start : start + side] += ramp
        return [(ramp / total[start : start + side]).astype(np.float32) for start in starts]


def likeliest(scores: Array) -> Uint8Array:
    """Return the class with the highest score at every pixel: (num_classes, H, W) to uint8 (H, W).

    If scores are equal, the first class is returned. The argmax function of NumPy copies all scores before it compares
    them.
    """
    best, mask = scores[0].copy(), np.zeros(scores.shape[1:], np.uint8)
    for label, plane in enumerate(scores[1:], 1):
        mask[plane > best] = label
        np.maximum(best, plane, out=best)
    return mask
