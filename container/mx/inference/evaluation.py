"""Inference on full images with the model in training, one image per device."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator

import mxnet as mx
import numpy as np

from container.arrays import Array, Uint8Array
from container.environment import memory_available
from container.geometry.tiles import padded_pixels
from container.geometry.windows import likeliest
from container.mx.inference import tiling
from container.mx.inference.interruptible import interruptible, wait_for
from container.mx.networks.segmentation import SegmentationNetwork

_AUTOTUNE = "MXNET_CUDNN_AUTOTUNE_DEFAULT"  # read by MXNet when a convolution gets an input of a new size
_WORKSPACE_BYTES = 2**30  # that cuDNN can use for a convolution, in addition to the arrays
_SHARE = 0.9  # of the free memory, which can be fragmented
_LONG_IMAGE = 250_000  # pixels above which a CPU needs seconds: 7 s for 500,000 in fcn with resnet-101 on two cores
_LARGE_IMAGE = 500_000  # pixels above which the memory pool of a device is released after inference

Prediction = tuple[Array, ...] | MemoryError  # one mask


@contextlib.contextmanager
def without_autotuning() -> Iterator[None]:
    """Disable the benchmarks of cuDNN, which would run for every image size.

    If an error occurs, the setting is not restored, because it must not change before the devices have finished.
    """
    mx.nd.waitall()
    before = os.environ.get(_AUTOTUNE)
    os.environ[_AUTOTUNE] = "0"
    yield
    mx.nd.waitall()
    if before is None:
        del os.environ[_AUTOTUNE]
    else:
        os.environ[_AUTOTUNE] = before


class MXNetEvaluator:
    """Evaluator of full images that uses a model on its devices. Use it in `without_autotuning`."""

    def __init__(
        self,
        network: SegmentationNetwork,
        devices: list[mx.Context],
        stop: threading.Event,
        most_pixels: int | None = None,
    ) -> None:
        self.name = "mxnet"
        self.models = 1
        self.batch_size = len(devices)
        self._on_host = devices[0].device_type == "cpu"  # images are assembled in the same memory
        self.prefetch = 0 if self._on_host else 2 * len(devices)  # decoded images also need memory
        self._most_pixels = most_pixels
        self._network = network
        self._devices = devices
        self._stop = stop
        self._memory = _free_memory(devices)
        self._reach = tiling.reach(network)

    def check_size(self, pixels: int) -> str | None:
        """Return why an image with this number of pixels cannot be evaluated, or None."""
        if self._most_pixels is not None and pixels > self._most_pixels:
            return (
                f"need too much memory for the evaluation after training. The limit is about {self._most_pixels} pixels"
            )
        num_classes, windows, tile = self._network.num_classes, self._network.windows, self._tile(pixels)
        largest = padded_pixels(windows.side, windows.side) if windows else tile
        needed = tiling.image_bytes(self._network.algorithm, num_classes, min(pixels, largest) if largest else pixels)
        if windows and self._on_host:
            needed += windows.memory(num_classes, 1, pixels)  # no shape with this number of pixels needs more
        elif tile and self._on_host:
            needed += tiling.host_bytes(num_classes, pixels)
        if needed <= self._memory:
            return None
        return f"need about {needed // 2**20} MB of memory on a device, and {self._memory // 2**20} MB are available"

    def predict(self, images: list[Uint8Array]) -> list[Prediction]:
        """Return the mask of each image, uint8 (H, W), or its MemoryError; `images` has at most `batch_size` elements.

        Images without windows or tiles are processed at the same time. Raises JobCancelledError when `stop` is set,
        without waiting for the devices. On CPUs, the current layer then continues.
        """
        is_long = self._on_host and max(image.shape[0] * image.shape[1] for image in images) > _LONG_IMAGE
        with interruptible(self._network, self._stop, is_long):
            return self._predict(images)

    def _predict(self, images: list[Uint8Array]) -> list[Prediction]:
        divided = [self._divides(image) for image in images]
        masks = {
            number: self._logits(image, device).argmax(axis=1).astype("uint8")
            for number, (image, device) in enumerate(zip(images, self._devices, strict=False))
            if not divided[number]
        }
        self._wait(list(masks.values()))
        predictions: list[Prediction] = [
            _read(masks[number]) if number in masks else self._assemble(image, self._devices[number])
            for number, image in enumerate(images)
        ]
        for image, device in zip(images, self._devices, strict=False):
            if device.device_type == "gpu" and image.shape[0] * image.shape[1] > _LARGE_IMAGE:
                device.empty_cache()
        return predictions

    def _logits(self, image: Uint8Array, device: mx.Context) -> mx.nd.NDArray:
        return self._network(mx.nd.array(image[None], dtype="uint8", ctx=device))

    def _divides(self, image: Uint8Array) -> bool:
        """Return whether an image is processed in windows or tiles."""
        if windows := self._network.windows:
            return windows.divide(*image.shape[:2])
        return self._tile(padded_pixels(*image.shape[:2])) is not None

    def _tile(self, pixels: int) -> int | None:
        """Return the number of pixels in a tile of an image; None if it is not processed in tiles."""
        if self._reach is None:
            return None
        network = self._network.algorithm, self._network.num_classes, self._reach
        host = tiling.host_bytes(self._network.num_classes, pixels) if self._on_host else 0
        return tiling.tile_pixels(*network, pixels, self._memory, host)

    def _assemble(self, image: Uint8Array, device: mx.Context) -> Prediction:
        """Process an image window by window, or tile by tile."""

        def probabilities(window: Uint8Array) -> Array:
            computed = self._logits(window, device).astype("float32").softmax(axis=1)
            self._wait([computed])
            result: Array = computed.asnumpy()[0]
            return result

        mask = np.empty(image.shape[:2], np.uint8)
        if windows := self._network.windows:
            bands = windows.blend(probabilities, image, self._network.num_classes)
        else:
            tile = self._tile(padded_pixels(*image.shape[:2]))
            assert tile
            bands = tiling.compute(self._network, image, device, tile, lambda logits: self._wait([logits]))
        try:
            for rows, band in bands:
                mask[rows] = likeliest(band)
        except mx.MXNetError as error:
            return _memory_error(error)
        return (mask,)

    def _wait(self, arrays: list[mx.nd.NDArray]) -> None:
        wait_for(arrays, self._stop)


def _read(mask: mx.nd.NDArray) -> Prediction:
    try:
        return (mask.asnumpy()[0],)
    except mx.MXNetError as error:
        return _memory_error(error)


def _memory_error(error: mx.MXNetError) -> MemoryError:
    """Return a MemoryError if a device has no free memory; raises any other error again."""
    text = str(error).lower()
    if "out of memory" in text or "failed to allocate" in text:
        return MemoryError("the memory of the device ran out")
    raise error


def _free_memory(devices: list[mx.Context]) -> int:
    """Return the bytes that one image can use on any of the devices."""
    if devices[0].device_type == "cpu":
        return int(memory_available() * _SHARE) // len(devices)
    free = []
    for device in devices:
        device.empty_cache()
        free.append(mx.context.gpu_memory_info(device.device_id)[0])
    return int((min(free) - _WORKSPACE_BYTES) * _SHARE)
