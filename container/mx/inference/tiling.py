"""Tiled inference of large images in MXNet, for fcn."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import mxnet as mx
from mxnet.gluon import nn

from container.arrays import Array, Float32Array, Uint8Array
from container.geometry import tiles
from container.mx.inference.memory import image_bytes
from container.mx.networks.segmentation import SegmentationNetwork

LEAST_PIXELS = 1_000_000  # of a tile
_BAND_VALUES = 2**24  # scores that are interpolated at once: 64 MB


def reach(network: SegmentationNetwork) -> int | None:
    """Return how many pixels to each side the main head's answer depends on; None when on all of them."""
    if network.algorithm != "fcn":
        return None
    stride, far = 1, 0
    for settings in _windowed(network):
        far += stride * (settings["kernel"][0] // 2) * settings.get("dilate", (1,))[0]
        stride *= settings["stride"][0]
    return far


def _windowed(block: mx.gluon.Block) -> Iterator[dict[str, tuple[int, ...]]]:
    """Give the settings of the layers that see a pixel's neighbors, in the order in which they work."""
    for name, child in block._children.items():
        if isinstance(child, (nn.Conv2D, nn.MaxPool2D)):
            yield child._kwargs
        elif name not in ("downsample", "auxlayer"):  # the first is beside a block's convolutions, and sees less
            yield from _windowed(child)


def tile_pixels(algorithm: str, num_classes: int, far: int, pixels: int, memory: int, beside: int = 0) -> int | None:
    """Return how many pixels a tile of an image may have; None when the whole image fits.

    The device has `memory` bytes, of which tiles leave `beside` to what they are put together in. The smallest tile may
    take more than there is.
    """
    if image_bytes(algorithm, num_classes, pixels) <= memory:
        return None
    fixed = image_bytes(algorithm, num_classes, 0)
    each = (image_bytes(algorithm, num_classes, 2**20) - fixed) / 2**20
    return max(LEAST_PIXELS, tiles.least(far), int((memory - beside - fixed) / each))


def host_bytes(num_classes: int, pixels: int) -> int:
    """Return about how many bytes an image of so many pixels takes beside the device, where it is put together."""
    return num_classes * pixels // tiles.STRIDE**2 * 4 + 4 * 4 * _BAND_VALUES


def compute(
    network: SegmentationNetwork,
    image: Uint8Array,
    device: mx.Context,
    max_pixels: int,
    wait: Callable[[mx.nd.NDArray], None] = lambda answer: None,
) -> Iterator[tuple[slice, Float32Array]]:
    """Give the logits of an image (H, W, 3) at its own size, band by band of rows.

    The network sees at most about `max_pixels` at once; `wait` is called with each tile's answer, before it is read.
    Each band is the slice of its rows and its logits (num_classes, rows, W). Raises MXNetError when the device's memory
    runs out.
    """
    far = reach(network)
    assert far is not None

    def logits_of(tile: Uint8Array) -> Array:
        images = mx.nd.array(tile[None], dtype="uint8", ctx=device)
        answer = network.decode(mx.nd, network.encode(mx.nd, images)[-1]).astype("float32")
        wait(answer)
        logits: Array = answer.asnumpy()
        return logits

    height, width = image.shape[:2]
    coarse = tiles.assemble(logits_of, image, network.num_classes, far, max_pixels)[0]
    above, below, down = tiles.places(height, coarse.shape[1])
    left, right, across = tiles.places(width, coarse.shape[2])
    step = max(1, _BAND_VALUES // (len(coarse) * width))
    for start in range(0, height, step):
        rows = slice(start, min(start + step, height))
        upper = coarse[:, above[rows]]
        band = upper + (coarse[:, below[rows]] - upper) * down[rows, None]
        first = band[:, :, left]
        yield rows, first + (band[:, :, right] - first) * across
