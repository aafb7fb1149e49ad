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
from container.mx.inference.memory import image_bytes
from container.mx.networks.segmentation import SegmentationNetwork

_AUTOTUNE = "MXNET_CUDNN_AUTOTUNE_DEFAULT"
_WORKSPACE_BYTES = 2**30  # what cuDNN may take for a convolution beside the arrays
_SHARE = 0.9  # of the free memory, which may be in pieces
_LONG_IMAGE = 250_000  # pixels above which a CPU takes seconds: 7 s for 500,000 in fcn with resnet-101 on two cores
_LARGE_IMAGE = 500_000  # pixels above which a device's pool is emptied after the answer


@contextlib.contextmanager
def without_autotuning() -> Iterator[None]:
    """Let cuDNN choose its convolutions without trying them out, which it would do anew for every size of image.

    MXNet asks for the setting when a convolution meets a new size. It comes back only when all went well: until the
    devices are done it must not change.
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
    """The network on its devices, as an evaluator of full images. Use it in `without_autotuning`."""

    def __init__(
        self,
        network: SegmentationNetwork,
        devices: list[mx.Context],
        until: threading.Event,
        most_pixels: int | None = None,
    ) -> None:
        self.name = "mxnet"
        self.models = 1
        self.at_once = len(devices)
        self._on_host = devices[0].device_type == "cpu"  # where images are put together in the same memory
        self.ahead = 0 if self._on_host else 2 * len(devices)  # decoded images take memory, too
        self._most_pixels = most_pixels
        self._network = network
        self._devices = devices
        self._until = until
        self._memory = _free_memory(devices)
        self._reach = tiling.reach(network)

    def admit(self, pixels: int) -> str | None:
        """Say why an image of so many pixels cannot be scored; None when it can."""
        if self._most_pixels is not None and pixels > self._most_pixels:
            return f"need more memory than the scores at the job's end will have: about {self._most_pixels} fit"
        num_classes, windows, tile = self._network.num_classes, self._network.windows, self._tile(pixels)
        largest = padded_pixels(windows.side, windows.side) if windows else tile
        needed = image_bytes(self._network.algorithm, num_classes, min(pixels, largest) if largest else pixels)
        if windows and self._on_host:
            needed += windows.memory(num_classes, 1, pixels)  # no form of so many pixels takes more
        elif tile and self._on_host:
            needed += tiling.host_bytes(num_classes, pixels)
        if needed <= self._memory:
            return None
        return f"need about {needed // 2**20} MB of a device's memory, {self._memory // 2**20} MB are there"

    def answers(self, images: list[Uint8Array]) -> list[tuple[Array, ...] | MemoryError]:
        """Return each image's mask, uint8 (H, W), or the error of a device whose memory ran out.

        The images, no more than `at_once`, are computed at the same time, but for those that windows or tiles divide.
        Raises Cancelled once `until` is set, without waiting for the devices; on CPUs one layer goes on then.
        """
        is_long = self._on_host and max(image.shape[0] * image.shape[1] for image in images) > _LONG_IMAGE
        with interruptible(self._network, self._until, is_long):
            return self._answers(images)

    def _answers(self, images: list[Uint8Array]) -> list[tuple[Array, ...] | MemoryError]:
        divided = [self._divides(image) for image in images]
        masks = {
            number: self._logits(image, device).argmax(axis=1).astype("uint8")
            for number, (image, device) in enumerate(zip(images, self._devices, strict=False))
            if not divided[number]
        }
        self._wait(list(masks.values()))
        answers: list[tuple[Array, ...] | MemoryError] = [
            _read(masks[number]) if number in masks else self._put_together(image, self._devices[number])
            for number, image in enumerate(images)
        ]
        for image, device in zip(images, self._devices, strict=False):
            if device.device_type == "gpu" and image.shape[0] * image.shape[1] > _LARGE_IMAGE:
                device.empty_cache()
        return answers

    def _logits(self, image: Uint8Array, device: mx.Context) -> mx.nd.NDArray:
        return self._network(mx.nd.array(image[None], dtype="uint8", ctx=device))

    def _divides(self, image: Uint8Array) -> bool:
        """Say whether an image is computed in windows or tiles."""
        if windows := self._network.windows:
            return windows.divide(*image.shape[:2])
        return self._tile(padded_pixels(*image.shape[:2])) is not None

    def _tile(self, pixels: int) -> int | None:
        """Return how many pixels a tile of an image has, None when it is not computed in tiles."""
        if self._reach is None:
            return None
        network = self._network.algorithm, self._network.num_classes, self._reach
        beside = tiling.host_bytes(self._network.num_classes, pixels) if self._on_host else 0
        return tiling.tile_pixels(*network, pixels, self._memory, beside)

    def _put_together(self, image: Uint8Array, device: mx.Context) -> tuple[Array, ...] | MemoryError:
        """Compute an image window by window, or tile by tile."""

        def scores(window: Uint8Array) -> Array:
            found = self._logits(window, device).astype("float32").softmax(axis=1)
            self._wait([found])
            scores: Array = found.asnumpy()[0]
            return scores

        mask = np.empty(image.shape[:2], np.uint8)
        if windows := self._network.windows:
            bands = windows.blend(scores, image, self._network.num_classes)
        else:
            tile = self._tile(padded_pixels(*image.shape[:2]))
            assert tile
            bands = tiling.compute(self._network, image, device, tile, lambda answer: self._wait([answer]))
        try:
            for rows, band in bands:
                mask[rows] = likeliest(band)
        except mx.MXNetError as error:
            return _ran_out(error)
        return (mask,)

    def _wait(self, arrays: list[mx.nd.NDArray]) -> None:
        wait_for(arrays, self._until)


def _read(mask: mx.nd.NDArray) -> tuple[Array, ...] | MemoryError:
    try:
        return (mask.asnumpy()[0],)
    except mx.MXNetError as error:
        return _ran_out(error)


def _ran_out(error: mx.MXNetError) -> MemoryError:
    """Return what a device says that has no memory left; raises any other error again."""
    text = str(error).lower()
    if "out of memory" in text or "failed to allocate" in text:
        return MemoryError("the device's memory ran out")
    raise error


def _free_memory(devices: list[mx.Context]) -> int:
    """Return the bytes that one image may take on any of the devices."""
    if devices[0].device_type == "cpu":
        return int(memory_available() * _SHARE) // len(devices)
    free = []
    for device in devices:
        device.empty_cache()
        free.append(mx.context.gpu_memory_info(device.device_id)[0])
    return int((min(free) - _WORKSPACE_BYTES) * _SHARE)
