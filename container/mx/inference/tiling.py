"""Memory that MXNet needs for an image, and tiled inference of large images for fcn."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import mxnet as mx
from mxnet.gluon import nn

from container.arrays import Array, Float32Array, Uint8Array
from container.geometry import tiles
from container.mx.networks.segmentation import SegmentationNetwork

LEAST_PIXELS = 1_000_000  # of a tile
_BAND_VALUES = 2**24  # logits that are interpolated at the same time: 64 MB

# Measured with VmHWM on the CPU, 800×800, resnet-50: fcn 732 bytes per pixel with 21 classes and 1248 with 150,
# deeplab 873 and psp 1060 with 21; fastscnn 238 with 21 and 752 with 150. Each class needs four of these bytes, for the
# logits at full resolution.
_BYTES_PER_PIXEL = {"fcn": 700, "deeplab": 850, "psp": 1050, "fastscnn": 160}
_BYTES_PER_CLASS = 4.4
_FIXED_BYTES = 2**27


def image_bytes(algorithm: str, num_classes: int, pixels: int) -> int:
    """Return an estimate of the bytes for one image on the device, in addition to the weights."""
    return _FIXED_BYTES + int((_BYTES_PER_PIXEL[algorithm] + _BYTES_PER_CLASS * num_classes) * pixels)


def reach(network: SegmentationNetwork) -> int | None:
    """Return how far the logits of a pixel depend on other pixels, in pixels; None if on the entire image."""
    if network.algorithm != "fcn":
        return None
    stride, far = 1, 0
    for settings in _windowed(network):
        far += stride * (settings["kernel"][0] // 2) * settings.get("dilate", (1,))[0]
        stride *= settings["stride"][0]
    return far


def _windowed(block: mx.gluon.Block) -> Iterator[dict[str, tuple[int, ...]]]:
    """Yield the settings of the layers whose output depends on neighboring pixels, in order."""
    for name, child in block._children.items():
        if isinstance(child, (nn.Conv2D, nn.MaxPool2D)):
            yield child._kwargs
        elif name not in (
            "downsample",
            "auxlayer",
        ):  # `downsample` has a smaller field than its block
            yield from _windowed(child)


def tile_pixels(algorithm: str, num_classes: int, far: int, pixels: int, memory: int, host: int = 0) -> int | None:
    """Return the number of pixels in a tile of an image; None if the full image fits.

    The device has `memory` bytes. With tiles, `host` of these bytes are needed to assemble the output. The smallest
    tile can need more than the available memory.
    """
    if image_bytes(algorithm, num_classes, pixels) <= memory:
        return None
    fixed = image_bytes(algorithm, num_classes, 0)
    each = (image_bytes(algorithm, num_classes, 2**20) - fixed) / 2**20
    return max(LEAST_PIXELS, tiles.least(far), int((memory - host - fixed) / each))


def host_bytes(num_classes: int, pixels: int) -> int:
    """Return an estimate of the host memory in bytes to assemble the output of an image."""
    return num_classes * pixels // tiles.STRIDE**2 * 4 + 4 * 4 * _BAND_VALUES


def compute(
    network: SegmentationNetwork,
    image: Uint8Array,
    device: mx.Context,
    max_pixels: int,
    wait: Callable[[mx.nd.NDArray], None] = lambda logits: None,
) -> Iterator[tuple[slice, Float32Array]]:
    """Yield the logits of an image (H, W, 3) at full resolution, in bands of rows.

    A tile has at most about `max_pixels`. `wait` is called with the logits of each tile before they are read. Each band
    is the slice of its rows and the logits (num_classes, rows, W). Raises MXNetError when the memory of the device runs
    out.
    """
    far = reach(network)
    assert far is not None

    def logits_of(tile: Uint8Array) -> Array:
        images = mx.nd.array(tile[None], dtype="uint8", ctx=device)
        computed = network.decode(mx.nd, network.encode(mx.nd, images)[-1]).astype("float32")
        wait(computed)
        logits: Array = computed.asnumpy()
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
