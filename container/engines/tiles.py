"""Large images in overlapping tiles: the same answer as at once, where a network sees only so far.

A decoder with global pooling (psp, deeplab) sees the whole image: its answers cannot be put together from tiles.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

STRIDE = 8

_WINDOWED = ("Convolution", "MaxPool")
_LOCAL = (
    *("Parameter", "Result", "Constant", "Convert", "ShapeOf", "Broadcast", "Reshape", "Concat", "Transpose"),
    *("Add", "Subtract", "Multiply", "Relu", "FakeQuantize"),
)


@dataclasses.dataclass(frozen=True)
class Tile:
    """A rectangle of the image, and the part of its answer that counts, at an eighth of the size.

    `image` are slices of the image; `inner` of what the network answers to them, which goes to `outer` of the whole.
    """

    image: tuple[slice, slice]
    inner: tuple[slice, slice]
    outer: tuple[slice, slice]


def reach(model: Any) -> int | None:
    """Return how many pixels to each side an OpenVINO model's answer depends on; None when on all of them."""
    seen: dict[str, tuple[int, int]] = {}  # by node: the stride, and the reach in the image's pixels
    for node in model.get_ordered_ops():
        kind = node.get_type_name()
        if kind not in _WINDOWED + _LOCAL:
            return None
        sources = [source.get_source_output().get_node().get_name() for source in node.inputs()]
        stride = max((seen[source][0] for source in sources), default=1)
        far = max((seen[source][1] for source in sources), default=0)
        if kind in _WINDOWED:
            settings = node.get_attributes()
            kernel = settings["kernel"] if kind == "MaxPool" else list(node.input(1).get_shape())[2:]
            far += stride * (kernel[0] // 2) * settings["dilations"][0]
            stride *= settings["strides"][0]
        seen[node.get_name()] = (stride, far)
    return max(far for _, far in seen.values())


def split(height: int, width: int, far: int, max_pixels: int) -> Iterator[Tile]:
    """Cut an image into as few tiles as fit into `max_pixels`, the `far` pixels around each of them included."""
    sizes = -(-height // STRIDE), -(-width // STRIDE)
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


def count(height: int, width: int, far: int, max_pixels: int) -> int:
    """Return how many pixels the network sees in all tiles, those in several of them more than once."""
    areas = ([cut.stop - cut.start for cut in tile.image] for tile in split(height, width, far, max_pixels))
    return sum(down * across for down, across in areas)


def _cuts(length: int, size: int, count: int, far: int) -> Iterator[tuple[slice, slice, slice]]:
    """Cut one axis: slices of the image, of the tile's answer and of the whole answer."""
    for number in range(count):
        first, last = number * size // count, (number + 1) * size // count
        start = max(0, first * STRIDE - far) // STRIDE * STRIDE
        stop = min(length, (last - 1) * STRIDE + far + 1)
        inner = slice(first - start // STRIDE, last - start // STRIDE)
        yield slice(start, stop), inner, slice(first, last)
