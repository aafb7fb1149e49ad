"""The OpenVINO engine for CPUs, with one copy of the weights."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import queue
import weakref
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from container.arrays import Array, Float32Array, Uint8Array
from container.engines import heads
from container.engines.costs import STANDING, MemoryModel, is_one_column
from container.engines.dilated import replace_dilated_convolutions
from container.engines.onnx_model import (
    find_decoder,
    foreign,
    import_openvino,
    is_narrow,
    reach,
    read_model,
    read_model_again,
    read_windows,
)
from container.engines.protocol import CancellationToken, Plan
from container.environment import processor_has
from container.errors import ClientError
from container.geometry import tiles
from container.geometry.windows import Windows, likeliest

PRECISIONS = ("auto", "float32", "bfloat16", "int8")

_WARM_SIZE = 64


class OpenVinoEngine:
    """Inference engine for an ONNX model of `container.mx.export`; several threads can use it.

    It runs `slots` concurrent inferences, each on its share of the `threads`. Further callers wait. Raises ClientError
    if the ONNX model is unusable, or if the processor does not support the precision.

    On processors with AMX, images of one column are processed in float32: see `container.engines.costs.is_one_column`.
    """

    def __init__(self, path: Path, precision: str = "auto", *, threads: int, slots: int = 1) -> None:
        openvino = import_openvino()
        self._core = core = openvino.Core()
        self._path = path
        self.precision = _choose_precision(core, precision)
        model = read_model(openvino, path)
        self.num_classes: int = model.output(0).get_partial_shape()[1].get_length()
        size = path.stat().st_size
        seen = self.num_classes, reach(model), self.precision, find_decoder(model)
        costs = MemoryModel.of(*seen, is_narrow=is_narrow(model), weights=size)
        windows = read_windows(model, path) if costs.reach is None else None
        exact = dataclasses.replace(costs.exact, windows=windows) if costs.exact else None
        self.planner = dataclasses.replace(costs, windows=windows, exact=exact)
        if exact:  # the ONNX model must be readable after its file was removed or replaced
            self._file = os.open(path, os.O_RDONLY)
            weakref.finalize(self, os.close, self._file)
        self.standing = slots * STANDING + costs.packed
        self.memory = costs.loaded + costs.packed
        settings: dict[str, Any] = {
            "NUM_STREAMS": slots,
            "INFERENCE_NUM_THREADS": threads,
            "ENABLE_CPU_PINNING": False,  # it would pin two processes to the same cores
            "CPU_RUNTIME_CACHE_CAPACITY": 0,  # the cache would retain some MB per image size
        }
        if self.precision == "bfloat16" and processor_has("amx_bf16"):
            replace_dilated_convolutions(openvino, model)
        hint = "bf16" if self.precision == "bfloat16" else "f32"  # also of the layers that are not int8
        self._network = core.compile_model(model, "CPU", {**settings, "INFERENCE_PRECISION_HINT": hint})
        settings["INFERENCE_PRECISION_HINT"] = "f32"
        self._exact_settings = {**settings, "NUM_STREAMS": 1}
        if self.precision == "int8":
            self._exact_settings["LP_TRANSFORMS_MODE"] = "NO"  # runs the convolutions of the int8 model in float32
        mask = core.compile_model(heads.mask_head(openvino, self.num_classes), "CPU", settings)
        probabilities = core.compile_model(heads.probability_head(openvino, self.num_classes), "CPU", settings)
        self._compiled = (self._network, mask, probabilities)
        self._exceeds_standing = False
        self._slots: queue.SimpleQueue[_InferRequest] = queue.SimpleQueue()
        for _ in range(slots):
            self._slots.put(_InferRequest(*(model.create_infer_request() for model in self._compiled)))

    def mask(self, image: Uint8Array, plan: Plan | None = None, stop: CancellationToken | None = None) -> Array:
        """Return the most likely class of every pixel: uint8 RGB (H, W, 3) to uint8 (H, W)."""
        stop = stop or CancellationToken()
        answer = np.empty(image.shape[:2], np.uint8)
        if windows := self._windows(image):
            with self._slot(image, plan, "probabilities") as slot:
                for rows, band in windows.blend(partial(self._scores, slot, stop=stop), image, self.num_classes):
                    answer[rows] = likeliest(band)
            return answer
        with self._slot(image, plan, "mask") as slot:
            logits = self._coarse_logits(slot, image, plan, stop)
            for rows, band in heads.resize(slot.mask, logits, image.shape[:2]):
                stop.check()
                answer[rows] = band
        return answer

    def probabilities(
        self, image: Uint8Array, plan: Plan | None = None, stop: CancellationToken | None = None
    ) -> Array:
        """Return the probability of every class at every pixel: uint8 RGB (H, W, 3) to float32 (num_classes, H, W)."""
        stop = stop or CancellationToken()
        with self._slot(image, plan, "probabilities") as slot:
            if not (windows := self._windows(image)):
                return self._scores(slot, image, plan, stop)
            answer = np.empty((self.num_classes, *image.shape[:2]), np.float32)
            for rows, band in windows.blend(partial(self._scores, slot, stop=stop), image, self.num_classes):
                answer[:, rows] = band
        return answer

    def warm(self) -> None:
        """Run inference once, so that the first request does not wait for initialization.

        Raises ClientError if the output does not have the shape of a model of `container.mx.export`.
        """
        image = np.zeros((_WARM_SIZE, _WARM_SIZE, 3), np.uint8)
        expected = (1, self.num_classes, *tiles.coarse_size(_WARM_SIZE, _WARM_SIZE))
        try:
            with self._slot(image, None, "mask") as slot:
                shape = self._coarse_logits(slot, image, None, CancellationToken()).shape
            if shape != expected:
                raise RuntimeError(f"its coarse_logits have the shape {shape} instead of {expected}")
            self.mask(image)
            self.probabilities(image)
        except RuntimeError as error:
            raise foreign(self._path, error) from error

    def release(self) -> None:
        """Release the memory retained between two images. If an inference runs, the next call releases it."""
        with contextlib.suppress(RuntimeError):
            for model in self._compiled:
                model.release_memory()
            self._exceeds_standing = False

    def _windows(self, image: Uint8Array) -> Windows | None:
        """Return the windows of the model if the image is larger than a window."""
        windows = self.planner.windows
        return windows if windows and windows.divide(*image.shape[:2]) else None

    def _scores(
        self, slot: _InferRequest, image: Uint8Array, plan: Plan | None = None, stop: CancellationToken | None = None
    ) -> Array:
        """Return the probabilities of an image or a window in a new array."""
        stop = stop or CancellationToken()
        answer = np.empty((self.num_classes, *image.shape[:2]), np.float32)
        logits = self._coarse_logits(slot, image, plan, stop)
        for rows, band in heads.resize(slot.probabilities, logits, image.shape[:2]):
            stop.check()
            answer[:, rows] = band
        return answer

    def _coarse_logits(
        self, slot: _InferRequest, image: Uint8Array, plan: Plan | None, stop: CancellationToken
    ) -> Array:
        """Return the logits at an eighth of the size, (1, num_classes, h, w), valid until the next use of the slot."""
        far, tile_pixels = self.planner.reach, plan.tile if plan else self.planner.usual_tile
        if far is None or tile_pixels is None or tiles.padded_pixels(*image.shape[:2]) <= tile_pixels:
            return _infer(slot.network, image, stop)
        return tiles.assemble(partial(_infer, slot.network, stop=stop), image, self.num_classes, far, tile_pixels)

    @contextlib.contextmanager
    def _slot(self, image: Uint8Array, plan: Plan | None, needs: str) -> Iterator[_InferRequest]:
        slot, (height, width) = self._slots.get(), image.shape[:2]
        try:
            yield self._with_exact_network(slot) if self.planner.exact and is_one_column(height, width) else slot
        finally:
            self._slots.put(slot)
            if windows := self._windows(image):
                height, width = min(height, windows.side), min(width, windows.side)
            seen = tiles.padded_pixels(height, width)
            if plan and plan.tile:
                seen = min(seen, plan.tile)
            self._exceeds_standing = self._exceeds_standing or self.planner.held(seen, height, width, needs) > STANDING
            if self._exceeds_standing:
                self.release()  # otherwise, the memory of the largest image would be retained

    def _with_exact_network(self, slot: _InferRequest) -> _InferRequest:
        """Return the slot with a float32 model for one image.

        The model is compiled for each of these images and released after it, because the images are rare, and the
        compiled model needs more memory than the original. MemoryModel.plan adds this memory to that of the image.
        """
        model = read_model_again(self._core, Path(f"/proc/self/fd/{self._file}"))
        network = self._core.compile_model(model, "CPU", self._exact_settings)
        return dataclasses.replace(slot, network=network.create_infer_request())


@dataclasses.dataclass(frozen=True)
class _InferRequest:
    """Infer requests for one image: of the model and of both heads."""

    network: Any
    mask: Any
    probabilities: Any


def _infer(network: Any, image: Uint8Array, stop: CancellationToken) -> Array:
    """Return the model output for an image. The inference cannot be interrupted.

    Do not use InferRequest.cancel() of OpenVINO 2026.4: the next inference, even of another request, returned the
    output of the cancelled image, or the process crashed.
    """
    stop.check()
    logits: Float32Array = network.infer([np.ascontiguousarray(image)[None]], share_inputs=True, share_outputs=True)[0]
    return logits


def _choose_precision(core: Any, precision: str) -> str:
    """Return float32, bfloat16, or int8; `auto` is bfloat16 if the processor supports it."""
    if precision == "float16":
        raise ClientError("SERVE_PRECISION=float16 needs a GPU. On CPUs, use auto, float32, bfloat16, or int8.")
    if precision not in PRECISIONS:
        raise ClientError(f"SERVE_PRECISION must be one of {', '.join(PRECISIONS)}, not {precision!r}")
    native = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if precision == "bfloat16" and not native:
        raise ClientError("SERVE_PRECISION=bfloat16 is not supported by this processor. Use auto or float32.")
    if precision == "auto":
        return "bfloat16" if native else "float32"
    return precision
