"""Overlapping tiles for large images, with the same output as the full image.

A decoder with global pooling (psp, deeplab) sees the whole image: its answers cannot be put together from tiles.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np

from container.arrays import Array, Float32Array, Uint8Array

STRIDE = 8  # pixels per cell of the network output, along both axes


@dataclasses.dataclass(frozen=True)
class Tile:
    """A rectangle of the image, and the part of its answer that counts, at an eighth of the size.

    `image` are slices of the image; `inner` of what the network answers to them, which goes to `outer` of the whole.
    """

    image: tuple[slice, slice]
    inner: tuple[slice, slice]
    outer: tuple[slice, slice]


def split(height: int, width: int, far: int, max_pixels: int) -> Iterator[Tile]:
    """Cut an image into as few tiles as fit into `max_pixels`, the `far` pixels around each of them included."""
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
    """Return how many pixels a tile should have at least, of which a quarter count when all sides have neighbors."""
    return (4 * far) ** 2


def count(height: int, width: int, far: int, max_pixels: int) -> int:
    """Return how many pixels the network sees in all tiles, those in several of them more than once."""
    sides = ([cut.stop - cut.start for cut in tile.image] for tile in split(height, width, far, max_pixels))
    return sum(padded_pixels(down, across) for down, across in sides)


def _cuts(length: int, size: int, count: int, far: int) -> Iterator[tuple[slice, slice, slice]]:
    """Cut one axis: slices of the image, of the tile's answer and of the whole answer."""
    for number in range(count):
        first, last = number * size // count, (number + 1) * size // count
        start = max(0, first * STRIDE - far) // STRIDE * STRIDE
        stop = min(length, (last - 1) * STRIDE + far + 1)
        inner = slice(first - start // STRIDE, last - start // STRIDE)
        yield slice(start, stop), inner, slice(first, last)


def coarse_size(height: int, width: int) -> tuple[int, int]:
    """Return the height and width of a network's answer, at an eighth of its image's."""
    return -(-height // STRIDE), -(-width // STRIDE)


def padded_pixels(height: int, width: int) -> int:
    """Return how many pixels the network computes for an image: those of all its cells, partial cells in full.

    Memory and time of the network follow this number: an image of 1×N pixels takes as much as one of 8×N.
    """
    rows, columns = coarse_size(height, width)
    return rows * columns * STRIDE**2


def is_thin(height: int, width: int) -> bool:
    """Return whether a side has fewer than two cells: the time per pixel of such an image says little about others."""
    return min(height, width) < 2 * STRIDE


def assemble(
    compute: Callable[[Uint8Array], Array], image: Uint8Array, num_classes: int, far: int, max_pixels: int
) -> Float32Array:
    """Return the logits of an image (H, W, 3) from those of its tiles: float32 (1, num_classes, h, w), at an eighth.

    `compute` returns those of a tile: uint8 (h, w, 3) to float32 (1, num_classes, h / 8, w / 8).
    """
    logits = np.empty((1, num_classes, *coarse_size(*image.shape[:2])), np.float32)
    for tile in split(image.shape[0], image.shape[1], far, max_pixels):
        whole, part = (slice(None), slice(None), *tile.outer), (slice(None), slice(None), *tile.inner)
        logits[whole] = compute(image[tile.image])[part]
    return logits


def places(length: int, coarse: int) -> tuple[Array, Array, Float32Array]:
    """Return where an axis of `length` pixels lies on one of `coarse`, corners aligned.

    For each pixel: the values before and after it, int32, and how far it is from the first to the second.
    """
    found = np.arange(length) * ((coarse - 1) / max(length - 1, 1))
    before = found.astype(np.int32)
    return before, np.minimum(before + 1, coarse - 1), (found - before).astype(np.float32)
