"""The MXNet engine, on the first GPU or on the CPU."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import mxnet as mx
import numpy as np
from mxnet.contrib import amp

from container.arrays import Array, Float32Array, Uint8Array
from container.artifact import model_directory
from container.engines.protocol import CancellationToken, ImageTooLargeError, Plan
from container.errors import ClientError
from container.geometry import tiles
from container.geometry.windows import Windows, likeliest
from container.mx.inference import tiling
from container.mx.networks.architectures import create_network
from container.mx.networks.fastscnn import answer_any_size
from container.mx.networks.segmentation import load_weights

Bands = Iterator[tuple[slice, Float32Array]]  # slices of rows, and (num_classes, rows, W)

_WARM_SIZE = 240

_IMAGE_BYTES = 28  # per pixel of host memory at most, to decode a 16-bit PNG
_COPIES = 2  # of the weights in host memory


@dataclasses.dataclass(frozen=True)
class MemoryModel:
    """Memory costs of one model. `device` is the GPU memory for images in bytes, None on a CPU.

    Large images are processed in `windows`, or with a `reach`, as in `container.geometry.tiles`, in tiles.
    """

    algorithm: str
    num_classes: int
    reach: int | None = None
    device: int | None = None
    windows: Windows | None = None

    def plan(self, height: int, width: int, room: int, answer: int = 0, needs: str = "mask") -> Plan:
        """Return how to process an image within `room` bytes; raises ImageTooLargeError if it does not fit."""
        pixels, seen = height * width, tiles.padded_pixels(height, width)
        at_once = whole = seen
        host, tile = pixels * _IMAGE_BYTES + answer, None
        if self.windows and self.windows.divide(height, width):
            seen, at_once = self.windows.pixels(height, width), self.windows.largest(height, width)
            host += self.windows.memory(self.num_classes, height, width)
        elif self.reach is not None:
            assembly = tiling.host_bytes(self.num_classes, whole)
            memory = (room - host, assembly) if self.device is None else (self.device, 0)
            if tile := tiling.tile_pixels(self.algorithm, self.num_classes, self.reach, whole, *memory):
                at_once, host = min(tile, whole), host + assembly
                seen = tiles.count(height, width, self.reach, tile)
        network = tiling.image_bytes(self.algorithm, self.num_classes, at_once)
        if self.device is None:
            host += network
        elif network > self.device:
            raise _too_large(width, height, network, f"{self.device // 2**20} MB of the GPU")
        if host > room:
            raise _too_large(width, height, host, f"{room // 2**20} MB")
        return Plan(host, seen, tile)


def _too_large(width: int, height: int, needed: int, allowed: str) -> ImageTooLargeError:
    return ImageTooLargeError(f"{width}×{height} pixels need about {needed // 2**20} MB; an image may take {allowed}")


class MXNetEngine:
    """Inference engine with the best weights of a model directory.

    A lock protects the model, because several threads must not call an MXNet block at the same time. Raises ClientError
    that names the file if the weights do not match hyperparams.json, or the `precision` if this engine or device does
    not support it.
    """

    def __init__(self, model_dir: Path, precision: str = "auto") -> None:
        if precision not in ("auto", "float32", "float16"):
            raise ClientError(
                f"SERVE_PRECISION={precision} needs OpenVINO. Set SERVE_ENGINE=openvino, or SERVE_PRECISION=auto."
            )
        self.precision = "float16" if precision == "float16" else "float32"
        settings = model_directory.read_model_settings(model_dir)
        self.num_classes: int = settings["num_classes"]
        self._algorithm: str = settings["algorithm"]
        self._device = mx.gpu() if mx.context.num_gpus() else mx.cpu()
        if self.precision == "float16" and self._device.device_type != "gpu":
            raise ClientError("SERVE_PRECISION=float16 needs a GPU. On CPUs, use auto, float32, or bfloat16.")
        self._network = create_network(**settings)
        load_weights(self._network, model_dir / model_directory.BEST_WEIGHTS, [self._device])
        self._least_side = self._network.least_side
        if self.precision == "float16":
            self._network._children.pop("auxlayer")  # amp.convert_hybrid_block fails for parameters outside the graph
            self._network.hybridize(static_alloc=True)
            self._logits(np.zeros((_WARM_SIZE, _WARM_SIZE, 3), np.uint8))  # traces the graph that is converted
            self._network = amp.convert_hybrid_block(self._network, "float16", ctx=self._device)
        self._network.hybridize(static_alloc=True)
        self._lock = threading.Lock()
        far = (
            tiling.reach(self._network) if self.precision == "float32" else None
        )  # a converted model has no encoder and decoder
        self.planner = MemoryModel(
            self._algorithm, self.num_classes, far, windows=model_directory.read_windows(model_dir)
        )
        self.standing = 0
        self.memory = _COPIES * (model_dir / model_directory.BEST_WEIGHTS).stat().st_size

    def mask(self, image: Uint8Array, plan: Plan | None = None, stop: CancellationToken | None = None) -> Array:
        """Return the most likely class of every pixel: uint8 RGB (H, W, 3) to uint8 (H, W).

        It stops only between two windows or tiles, because MXNet cannot cancel an operation.
        """
        answer: Array
        with self._turn(stop):
            if bands := self._windows_of(image, stop) or self._tiles_of(image, plan, stop):
                answer = np.empty(image.shape[:2], np.uint8)
                for rows, band in bands:
                    answer[rows] = likeliest(band)
            else:
                answer = self._logits(image).argmax(axis=1).astype("uint8").asnumpy()[0]
        return answer

    def probabilities(
        self, image: Uint8Array, plan: Plan | None = None, stop: CancellationToken | None = None
    ) -> Array:
        """Return the probability of every class at every pixel: uint8 RGB (H, W, 3) to float32 (num_classes, H, W)."""
        with self._turn(stop):
            answer = np.empty((self.num_classes, *image.shape[:2]), np.float32)
            if windows := self._windows_of(image, stop):
                for rows, band in windows:
                    answer[:, rows] = band
            elif parts := self._tiles_of(image, plan, stop):
                for rows, band in parts:
                    answer[:, rows] = mx.nd.array(band).softmax(axis=0).asnumpy()
            else:
                return self._scores(image)
        return answer

    def warm(self) -> None:
        """Run inference once, so that the first request does not wait for initialization."""
        self.mask(np.zeros((_WARM_SIZE, _WARM_SIZE, 3), np.uint8))
        if self._device.device_type == "gpu":
            free, _ = mx.context.gpu_memory_info(self._device.device_id)
            self.planner = dataclasses.replace(self.planner, device=free)

    def release(self) -> None:
        """Do nothing, because MXNet retains its memory pool."""

    @contextlib.contextmanager
    def _turn(self, stop: CancellationToken | None) -> Iterator[None]:
        with self._lock:
            if stop:
                stop.check()
            yield

    def _windows_of(self, image: Uint8Array, stop: CancellationToken | None) -> Bands | None:
        """Yield the probabilities of an image that is larger than a window; None for other images."""
        windows = self.planner.windows
        if not windows or not windows.divide(*image.shape[:2]):
            return None
        return windows.blend(partial(self._scores, stop=stop), image, self.num_classes)

    def _tiles_of(self, image: Uint8Array, plan: Plan | None, stop: CancellationToken | None) -> Bands | None:
        """Yield the logits of an image that its plan divides into tiles; None for other images."""
        if not plan or not plan.tile or tiles.padded_pixels(*image.shape[:2]) <= plan.tile:
            return None
        return tiling.compute(self._network, image, self._device, plan.tile, lambda _: stop.check() if stop else None)

    def _scores(self, image: Uint8Array, stop: CancellationToken | None = None) -> Array:
        if stop:
            stop.check()
        scores: Array = self._logits(image).softmax(axis=1).asnumpy()[0]
        return scores

    def _logits(self, image: Uint8Array) -> mx.nd.NDArray:
        images = mx.nd.array(image[None], dtype="uint8", ctx=self._device)
        return answer_any_size(self._network, images, self._least_side)  # a converted model does not do this itself
