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
from container.engines.graph import (
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
from container.errors import ClientError
from container.geometry import tiles
from container.geometry.windows import Windows, likeliest

PRECISIONS = ("auto", "float32", "bfloat16", "int8")

_WARM_SIZE = 64


class OpenVinoEngine:
    """An ONNX graph of `container.mx.export`, ready to answer from several threads.

    `slots` images are computed at once, each on its share of the `threads`; further callers wait. Raises ClientError
    when the graph is unusable, or when the processor lacks the precision asked for.

    On processors with AMX, images of one column are inferred in float32: see `container.engines.costs.is_one_column`.
    """

    def __init__(self, graph: Path, precision: str = "auto", *, threads: int, slots: int = 1) -> None:
        openvino = import_openvino()
        self._core = core = openvino.Core()
        self._graph = graph
        self.precision = _choose_precision(core, precision)
        model = read_model(openvino, graph)
        self.num_classes: int = model.output(0).get_partial_shape()[1].get_length()
        size = graph.stat().st_size
        seen = self.num_classes, reach(model), self.precision, find_decoder(model)
        costs = MemoryModel.of(*seen, is_narrow=is_narrow(model), weights=size)
        windows = read_windows(model, graph) if costs.reach is None else None
        exact = dataclasses.replace(costs.exact, windows=windows) if costs.exact else None
        self.planner = dataclasses.replace(costs, windows=windows, exact=exact)
        if exact:  # the graph must stay readable after its file was removed or replaced
            self._file = os.open(graph, os.O_RDONLY)
            weakref.finalize(self, os.close, self._file)
        self.standing = slots * STANDING + costs.packed
        self.memory = costs.loaded + costs.packed
        settings: dict[str, Any] = {
            "NUM_STREAMS": slots,
            "INFERENCE_NUM_THREADS": threads,
            "ENABLE_CPU_PINNING": False,  # two processes would be pinned to the same cores
            "CPU_RUNTIME_CACHE_CAPACITY": 0,  # else every new size of an image costs some MB that are never given back
        }
        hint = "bf16" if self.precision == "bfloat16" else "f32"  # of what int8 leaves, too
        self._network = core.compile_model(model, "CPU", {**settings, "INFERENCE_PRECISION_HINT": hint})
        settings["INFERENCE_PRECISION_HINT"] = "f32"
        self._exact_settings = {**settings, "NUM_STREAMS": 1}
        if self.precision == "int8":
            self._exact_settings["LP_TRANSFORMS_MODE"] = "NO"  # computes the int8 graph's convolutions in float32
        mask = core.compile_model(heads.mask_head(openvino, self.num_classes), "CPU", settings)
        probabilities = core.compile_model(heads.probability_head(openvino, self.num_classes), "CPU", settings)
        self._compiled = (self._network, mask, probabilities)
        self._is_swollen = False
        self._slots: queue.SimpleQueue[_InferRequest] = queue.SimpleQueue()
        for _ in range(slots):
            self._slots.put(_InferRequest(*(model.create_infer_request() for model in self._compiled)))

    def mask(self, image: Uint8Array, plan: Plan | None = None, stop: CancellationToken | None = None) -> Array:
        """Return the likeliest class of every pixel: uint8 RGB (H, W, 3) to uint8 (H, W)."""
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
        """Answer once, so that the first request does not pay for what is set up lazily.

        Raises ClientError when the graph does not answer as one that train wrote.
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
            raise foreign(self._graph, error) from error

    def release(self) -> None:
        """Give back what is kept between two images, unless one is being computed: then the next one tries again."""
        with contextlib.suppress(RuntimeError):
            for model in self._compiled:
                model.release_memory()
            self._is_swollen = False

    def _windows(self, image: Uint8Array) -> Windows | None:
        """Return the windows that divide the image, if any do."""
        windows = self.planner.windows
        return windows if windows and windows.divide(*image.shape[:2]) else None

    def _scores(
        self, slot: _InferRequest, image: Uint8Array, plan: Plan | None = None, stop: CancellationToken | None = None
    ) -> Array:
        """Return the probabilities of an image, or of a window of one, in an array of their own."""
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
        """Return the logits at an eighth of the size, (1, num_classes, h, w), valid until the slot's next image."""
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
            self._is_swollen = self._is_swollen or self.planner.held(seen, height, width, needs) > STANDING
            if self._is_swollen:
                self.release()  # it would stay as large as the largest image so far

    def _with_exact_network(self, slot: _InferRequest) -> _InferRequest:
        """Return the slot with a float32 network for one image.

        The network is compiled for each such image and released after it: images of this kind are rare, and the network
        takes more memory than the model. Costs.plan adds that memory to the image.
        """
        model = read_model_again(self._core, Path(f"/proc/self/fd/{self._file}"))
        network = self._core.compile_model(model, "CPU", self._exact_settings)
        return dataclasses.replace(slot, network=network.create_infer_request())


@dataclasses.dataclass(frozen=True)
class _InferRequest:
    """What one image needs while it is answered: requests of the network and of both heads."""

    network: Any
    mask: Any
    probabilities: Any


def _infer(network: Any, image: Uint8Array, stop: CancellationToken) -> Array:
    """Return the network's answer, whose computation is not to be interrupted.

    InferRequest.cancel() of OpenVINO 2026.4 must not be used: after it the next inference, even of another request,
    gave the cancelled image's answer, or the process died.
    """
    stop.check()
    logits: Float32Array = network.infer([np.ascontiguousarray(image)[None]], share_inputs=True, share_outputs=True)[0]
    return logits


def _choose_precision(core: Any, precision: str) -> str:
    """Return float32, bfloat16 or int8; `auto` is bfloat16 where the processor computes in it."""
    if precision == "float16":
        raise ClientError("SERVE_PRECISION=float16 needs a GPU: on CPUs take auto, float32, bfloat16 or int8")
    if precision not in PRECISIONS:
        raise ClientError(f"SERVE_PRECISION must be one of {', '.join(PRECISIONS)}, not {precision!r}")
    native = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if precision == "bfloat16" and not native:
        raise ClientError("SERVE_PRECISION=bfloat16: this processor does not compute in bfloat16; use auto or float32")
    if precision == "auto":
        return "bfloat16" if native else "float32"
    return precision
