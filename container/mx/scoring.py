"""Whole images answered by the trainer's own network, one per device at a time: on GPUs, and between epochs."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator

import mxnet as mx

from container.arrays import Array, Uint8Array
from container.environment import memory_available
from container.errors import Cancelled
from container.mx.memory import image_bytes
from container.mx.network import SegmentationNetwork

_AUTOTUNE = "MXNET_CUDNN_AUTOTUNE_DEFAULT"
_SLICE_SECONDS = 0.1  # how soon a wait notices that it is no longer wanted
_WORKSPACE_BYTES = 2**30  # what cuDNN may take for a convolution beside the arrays
_SHARE = 0.9  # of the free memory, which may be in pieces
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


class MXNetScorer:
    """The network on its devices, as `container.training.scoring` wants a scorer. Use it in `without_autotuning`."""

    def __init__(self, network: SegmentationNetwork, devices: list[mx.Context], until: threading.Event) -> None:
        self.name = "mxnet"
        self.models = 1
        self.at_once = len(devices)
        self.ahead = 2 * len(devices)
        self._network = network
        self._devices = devices
        self._until = until
        self._memory = _free_memory(devices)

    def admit(self, pixels: int) -> str | None:
        """Say why an image of so many pixels cannot be scored; None when it can."""
        needed = image_bytes(self._network.algorithm, self._network.num_classes, pixels)
        if needed <= self._memory:
            return None
        return f"need about {needed // 2**20} MB of a device's memory, {self._memory // 2**20} MB are there"

    def answers(self, images: list[Uint8Array]) -> list[tuple[Array, ...] | MemoryError]:
        """Return each image's mask, uint8 (H, W), or the error of a device whose memory ran out.

        The images, no more than `at_once`, are computed at the same time. Raises Cancelled once `until` is set, without
        waiting for the devices.
        """
        masks = [
            self._network(mx.nd.array(image[None], dtype="uint8", ctx=device)).argmax(axis=1).astype("uint8")
            for image, device in zip(images, self._devices, strict=False)
        ]
        self._wait(masks)
        answers: list[tuple[Array, ...] | MemoryError] = [_read(mask) for mask in masks]
        for image, device in zip(images, self._devices, strict=False):
            if device.device_type == "gpu" and image.shape[0] * image.shape[1] > _LARGE_IMAGE:
                device.empty_cache()
        return answers

    def _wait(self, arrays: list[mx.nd.NDArray]) -> None:
        """Wait for the devices in a thread: the engine's own wait cannot be given up."""
        done = threading.Event()

        def wait() -> None:
            for array in arrays:
                with contextlib.suppress(mx.MXNetError):  # is raised again where the array is read
                    array.wait_to_read()
            done.set()

        threading.Thread(target=wait, name="wait", daemon=True).start()
        while not done.wait(_SLICE_SECONDS):
            if self._until.is_set():
                raise Cancelled


def _read(mask: mx.nd.NDArray) -> tuple[Array, ...] | MemoryError:
    try:
        return (mask.asnumpy()[0],)
    except mx.MXNetError as error:
        text = str(error).lower()
        if "out of memory" in text or "failed to allocate" in text:
            return MemoryError("the device's memory ran out")
        raise


def _free_memory(devices: list[mx.Context]) -> int:
    """Return the bytes that one image may take on any of the devices."""
    if devices[0].device_type == "cpu":
        return int(memory_available() * _SHARE) // len(devices)
    free = []
    for device in devices:
        device.empty_cache()
        free.append(mx.context.gpu_memory_info(device.device_id)[0])
    return int((min(free) - _WORKSPACE_BYTES) * _SHARE)
