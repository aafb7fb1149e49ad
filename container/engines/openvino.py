"""The engine for CPUs: the exported graph in OpenVINO, one copy of the weights for all cores, without MXNet."""

from __future__ import annotations

import contextlib
import dataclasses
import queue
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from container import artifacts
from container.arrays import Array, Float32Array, Uint8Array
from container.engines import heads, tiles
from container.errors import ClientError, last_line

PRECISIONS = ("auto", "float32", "bfloat16", "int8")

_WARM_SIZE = 64
_TILE = (4_000_000, 16_000_000)  # pixels that the network sees at once at least, and at most, where tiles are exact
_LARGE_IMAGE = 500_000  # pixels above which the network's memory is given back after the answer, 2 % of its time

# Measured with VmHWM at 2 million pixels, 113 MB of it at the first image: in float32 fcn takes 364 bytes per pixel,
# deeplab 429, psp 712; in bfloat16 200, 233 and 375; in int8 333, 470 and 669. With resnet-18, a quarter as
# wide: fcn 123, deeplab 233, psp 189; in bfloat16 49, 108 and 78; in int8 108, 158 and 181.
_FIXED_BYTES = 2**28  # those 113 MB, and the bands of the heads
_BYTES_PER_PIXEL = {"wide local": 400, "wide global": 700, "narrow local": 150, "narrow global": 250}
_NARROW = 512  # channels of the widest layer of the small backbones


class OpenVinoEngine:
    """An ONNX graph of `container.mx.export`, ready to answer from several threads.

    `slots` images are computed at once, each on its share of the `threads`; further callers wait. An image that would
    need more than `image_memory` bytes is computed in tiles, if the network allows that. Raises ClientError when the
    graph is unusable, or when the processor lacks the precision asked for.
    """

    def __init__(
        self, graph: Path, precision: str = "auto", *, threads: int, slots: int = 1, image_memory: int = 2**31
    ) -> None:
        openvino = import_openvino()
        core = openvino.Core()
        self._graph = graph
        self.precision = _choose_precision(core, precision)
        model = _read_model(openvino, core, graph)
        self._reach = tiles.reach(model)
        self._bytes_per_pixel = _BYTES_PER_PIXEL[f"{_width(model)} {'global' if self._reach is None else 'local'}"]
        if self.precision == "bfloat16":
            self._bytes_per_pixel = self._bytes_per_pixel * 11 // 20
        least, most = _TILE
        self._tile = min(max(least, (image_memory - _FIXED_BYTES) // self._bytes_per_pixel), most)
        self.num_classes: int = model.output(0).get_partial_shape()[1].get_length()
        settings: dict[str, Any] = {
            "NUM_STREAMS": slots,
            "INFERENCE_NUM_THREADS": threads,
            "ENABLE_CPU_PINNING": False,  # two processes would be pinned to the same cores
        }
        hint = "bf16" if self.precision == "bfloat16" else "f32"  # of what int8 leaves, too
        self._network = core.compile_model(model, "CPU", {**settings, "INFERENCE_PRECISION_HINT": hint})
        settings["INFERENCE_PRECISION_HINT"] = "f32"
        mask = core.compile_model(heads.mask_head(openvino, self.num_classes), "CPU", settings)
        probabilities = core.compile_model(heads.probability_head(openvino, self.num_classes), "CPU", settings)
        compiled = (self._network, mask, probabilities)
        self._slots: queue.LifoQueue[_Slot] = queue.LifoQueue()
        for _ in range(slots):
            self._slots.put(_Slot(*(model.create_infer_request() for model in compiled)))

    def mask(self, image: Uint8Array) -> Array:
        """Return the likeliest class of every pixel: uint8 RGB (H, W, 3) to uint8 (H, W)."""
        answer = np.empty(image.shape[:2], np.uint8)
        with self._slot(image) as slot:
            for rows, band in heads.resize(slot.mask, self._coarse_logits(slot, image), image.shape[:2]):
                answer[rows] = band
        return answer

    def probabilities(self, image: Uint8Array) -> Array:
        """Return the probability of every class at every pixel: uint8 RGB (H, W, 3) to float32 (num_classes, H, W)."""
        answer = np.empty((self.num_classes, *image.shape[:2]), np.float32)
        with self._slot(image) as slot:
            for rows, band in heads.resize(slot.probabilities, self._coarse_logits(slot, image), image.shape[:2]):
                answer[:, rows] = band
        return answer

    def memory(self, pixels: int) -> int:
        """Return the bytes that a mask of so many pixels needs at most beside the loaded model, its answer included."""
        if self._reach is None:
            return _FIXED_BYTES + self._bytes_per_pixel * pixels
        beside = 4 + self.num_classes // 8  # the image, the mask and the logits at an eighth of the size
        return _FIXED_BYTES + self._bytes_per_pixel * min(pixels, self._tile) + beside * pixels

    def warm(self) -> None:
        """Answer once, so that the first request does not pay for what is set up lazily.

        Raises ClientError when the graph does not answer as one that train wrote.
        """
        image = np.zeros((_WARM_SIZE, _WARM_SIZE, 3), np.uint8)
        expected = (1, self.num_classes, _WARM_SIZE // tiles.STRIDE, _WARM_SIZE // tiles.STRIDE)
        try:
            with self._slot(image) as slot:
                shape = self._coarse_logits(slot, image).shape
            if shape != expected:
                raise RuntimeError(f"its coarse_logits have the shape {shape} instead of {expected}")
            self.mask(image)
            self.probabilities(image)
        except RuntimeError as error:
            raise _foreign(self._graph, error) from error

    def _coarse_logits(self, slot: _Slot, image: Uint8Array) -> Array:
        """Return the logits at an eighth of the size, (1, num_classes, h, w), valid until the slot's next image."""
        if self._reach is None or image.shape[0] * image.shape[1] <= self._tile:
            return _infer(slot.network, image)
        logits = np.empty((1, self.num_classes, *(-(-side // tiles.STRIDE) for side in image.shape[:2])), np.float32)
        for tile in tiles.split(image.shape[0], image.shape[1], self._reach, self._tile):
            whole, part = (slice(None), slice(None), *tile.outer), (slice(None), slice(None), *tile.inner)
            logits[whole] = _infer(slot.network, image[tile.image])[part]
        return logits

    @contextlib.contextmanager
    def _slot(self, image: Uint8Array) -> Iterator[_Slot]:
        slot = self._slots.get()
        try:
            yield slot
        finally:
            self._slots.put(slot)
            if image.shape[0] * image.shape[1] > _LARGE_IMAGE:
                self._network.release_memory()  # it would stay as large as the largest image so far


@dataclasses.dataclass(frozen=True)
class _Slot:
    """What one image needs while it is answered: requests of the network and of both heads."""

    network: Any
    mask: Any
    probabilities: Any


def _width(model: Any) -> str:
    """Tell the small backbones from the large ones by the widest convolution."""
    convolutions = [node for node in model.get_ops() if node.get_type_name() == "Convolution"]
    widest = max((node.input(1).get_partial_shape()[0].get_length() for node in convolutions), default=_NARROW + 1)
    return "narrow" if widest <= _NARROW else "wide"


def _infer(network: Any, image: Uint8Array) -> Array:
    logits: Float32Array = network.infer([np.ascontiguousarray(image)[None]], share_inputs=True, share_outputs=True)[0]
    return logits


def import_openvino() -> ModuleType:
    """Import OpenVINO without its model converter, which reports every import to Google Analytics.

    The telemetry package runs a process per event; on a network without a way out it hangs. OpenVINO itself does
    without the converter, and is imported in a tenth of the time.
    """
    sys.modules.setdefault("openvino.tools.ovc", None)  # type: ignore[arg-type]
    import openvino

    module: ModuleType = openvino
    return module


def prepare_graph(model_dir: Path, precision: str, scratch: Path) -> Path:
    """Return the path of the model's graph; for an archive without one, a child process writes it into `scratch`.

    Raises ClientError when the archive has no int8 graph but `precision` asks for it, or holds no usable model.
    """
    if precision == "int8":
        graph = model_dir / artifacts.INT8_GRAPH
        if not graph.is_file():
            raise ClientError(
                f"SERVE_PRECISION=int8: {graph} is missing; train with _quantize=True, quantize the archive by "
                "python -m container.engines.quantize, or serve with SERVE_PRECISION=auto"
            )
        return graph
    if (model_dir / artifacts.GRAPH).is_file():
        return model_dir / artifacts.GRAPH
    command = [sys.executable, "-m", "container.mx.convert", str(model_dir), str(scratch / artifacts.GRAPH)]
    child = subprocess.run(command, cwd=Path(__file__).parents[2], stderr=subprocess.PIPE, text=True, check=False)
    if child.returncode:
        reason = last_line(child.stderr) or f"exit status {child.returncode}"
        raise ClientError(
            f"{model_dir} could not be converted to {artifacts.GRAPH}: {reason.removeprefix('ClientError: ')}"
        )
    return scratch / artifacts.GRAPH


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


def _read_model(openvino: ModuleType, core: Any, graph: Path) -> Any:
    """Read the graph for one image at a time, up to the logits at an eighth of the size."""
    try:
        model = core.read_model(graph)
        coarse = next(o for node in model.get_ops() for o in node.outputs() if "coarse_logits" in o.get_names())
        model.reshape([1, -1, -1, 3])
        (image,) = model.get_parameters()
        if image.get_element_type() != openvino.Type.u8 or coarse.get_element_type() != openvino.Type.f32:
            raise RuntimeError("it does not make float32 of uint8")
        model = openvino.Model([coarse], [image])
    except (RuntimeError, StopIteration) as error:
        raise _foreign(graph, error) from error
    if name := _name_of_weights_that_are_not_finite(model):
        remedy = "it is damaged, or of a training that diverged; unpack the job's model.tar.gz anew"
        raise ClientError(f"{graph} holds weights that are not finite ({name}): {remedy}")
    return model


def _name_of_weights_that_are_not_finite(model: Any) -> str:
    """Return the first such constant's name: a ReLU makes 0 of NaN, so that no answer would show it."""
    for node in model.get_ops():
        is_float = node.get_type_name() == "Constant" and node.get_element_type().get_type_name() == "f32"
        if is_float and not np.isfinite(node.get_data().sum(dtype=np.float64)):
            return str(node.get_friendly_name())
    return ""


def _foreign(graph: Path, error: Exception) -> ClientError:
    reason = "it has no tensor coarse_logits" if isinstance(error, StopIteration) else last_line(error)
    return ClientError(f"{graph} is not a graph that train wrote: {reason}")
