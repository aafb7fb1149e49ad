"""Overlapping tiles for large images, with the same output as the full image.

The output of a decoder with global pooling (psp, deeplab) depends on the full image. It cannot be combined from tiles.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np

from container.arrays import Array, Float32Array, Uint8Array

STRIDE = 8  # pixels per cell of the model output, along both axes


@dataclasses.dataclass(frozen=True)
class Tile:
    """Rectangle of an image, and the part of its output that is used, at an eighth of the size.

    `image` contains slices of the image, `inner` slices of the output of this tile, and `outer` the slices of the
    complete output to which `inner` is written.
    """

    image: tuple[slice, slice]
    inner: tuple[slice, slice]
    outer: tuple[slice, slice]


def split(height: int, width: int, far: int, max_pixels: int) -> Iterator[Tile]:
    """Split an image into the fewest tiles of at most `max_pixels`, including the border of `far` pixels."""
    sizes = coarse_size(height, width)
    counts = [1, 1]
    while True:
        sides = [-(-size // count) * STRIDE + 2 * far * (count > 1) for size, count in zip(sizes, counts, strict=True)]
        longer = int(sides[1] > sides[0])
        if sides[0] * sides[1] <= max_pixels or counts[longer] >= sizes[longer]:
            break
        counts[longer] += 1
    for down in _cuts(height, sizes[0], counts[0], far):
        for across in _cuts(width, sizes[1], counts[1], far):
            yield Tile(*zip(down, across, strict=True))


def least(far: int) -> int:
    """Return the smallest useful number of pixels per tile. If all sides have neighbors, a quarter is used."""
    return (4 * far) ** 2


def count(height: int, width: int, far: int, max_pixels: int) -> int:
    """Return how many pixels the model processes in all tiles. Pixels in overlaps count once per tile."""
    sides = ([cut.stop - cut.start for cut in tile.image] for tile in split(height, width, far, max_pixels))
    return sum(padded_pixels(down, across) for down, across in sides)


def _cuts(length: int, size: int, count: int, far: int) -> Iterator[tuple[slice, slice, slice]]:
    """Split one axis: yield slices of the image, of the output of the tile, and of the complete output."""
    for number in range(count):
        first, last = number * size // count, (number + 1) * size // count
        start = max(0, first * STRIDE - far) // STRIDE * STRIDE
        stop = min(length, (last - 1) * STRIDE + far + 1)
        inner = slice(first - start // STRIDE, last - start // STRIDE)
        yield slice(start, stop), inner, slice(first, last)


def coarse_size(height: int, width: int) -> tuple[int, int]:
    """Return the height and width of the model output: an eighth of those of the image, rounded up."""
    return -(-height // STRIDE), -(-width // STRIDE)


def padded_pixels(height: int, width: int) -> int:
    """Return how many pixels the model processes for an image: those of all cells, with partial cells in full.

    Memory and time of inference depend on this number: an image of 1×N pixels needs as much as an image of 8×N.
    """
    rows, columns = coarse_size(height, width)
    return rows * columns * STRIDE**2


def is_thin(height: int, width: int) -> bool:
    """Return whether a side has fewer than two cells. The time per pixel of such images does not apply to others."""
    return min(height, width) < 2 * STRIDE


def assemble(
    compute: Callable[[Uint8Array], Array], image: Uint8Array, num_classes: int, far: int, max_pixels: int
) -> Float32Array:
    """Return the logits of an image (H, W, 3), combined from its tiles: float32 (1, num_classes, H / 8, W / 8).

    `compute` returns the logits of a tile: uint8 (h, w, 3) to float32 (1, num_classes, h / 8, w / 8).
    """
    logits = np.empty((1, num_classes, *coarse_size(*image.shape[:2])), np.float32)
    for tile in split(image.shape[0], image.shape[1], far, max_pixels):
        whole, part = (slice(None), slice(None), *tile.outer), (slice(None), slice(None), *tile.inner)
        logits[whole] = compute(image[tile.image])[part]
    return logits


def places(length: int, coarse: int) -> tuple[Array, Array, Float32Array]:
    """Return the positions of `length` pixels on an axis of `coarse` values, for interpolation with aligned corners.

    For each pixel: the indices of the values before and after it, int32, and its distance from the first to the second
    value, as a fraction.
    """
    positions = np.arange(length) * ((coarse - 1) / max(length - 1, 1))
    before = positions.astype(np.int32)
    return before, np.minimum(before + 1, coarse - 1), (positions - before).astype(np.float32)
