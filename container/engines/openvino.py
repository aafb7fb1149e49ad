"""The engine for CPUs: the exported graph in OpenVINO, one copy of the weights for all cores, without MXNet."""

from __future__ import annotations

import contextlib
import queue
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from container.errors import ClientError

GRAPH = "model.onnx"
INT8_GRAPH = "model.int8.onnx"
PRECISIONS = ("auto", "float32", "bfloat16", "int8")

_WARM_SIZE = 64
_BAND_VALUES = 2**24  # scores that are resized at once: 64 MB, whatever the image's size
_LARGE_IMAGE = 4_000_000  # pixels above which the network's memory is given back after the answer


class OpenVinoEngine:
    """An ONNX graph of `container.mx.export`, ready to answer from several threads.

    `slots` images are computed at once, each on its share of the `threads`; further callers wait. Raises ClientError
    when the graph is unusable, or when the processor lacks the precision asked for.
    """

    def __init__(self, graph: Path, precision: str = "auto", *, threads: int, slots: int = 1) -> None:
        openvino = import_openvino()
        core = openvino.Core()
        self.precision = _choose_precision(core, precision)
        model = _read_model(openvino, core, graph)
        self.num_classes: int = model.output(0).get_partial_shape()[1].get_length()
        settings = {
            "NUM_STREAMS": slots,
            "INFERENCE_NUM_THREADS": threads,
            "ENABLE_CPU_PINNING": False,  # two processes would be pinned to the same cores
        }
        hint = "bf16" if self.precision == "bfloat16" else "f32"  # of what int8 leaves, too
        self._network = core.compile_model(model, "CPU", {**settings, "INFERENCE_PRECISION_HINT": hint})
        heads = (_mask_head(openvino, self.num_classes), _probability_head(openvino, self.num_classes))
        compiled = [core.compile_model(head, "CPU", {**settings, "INFERENCE_PRECISION_HINT": "f32"}) for head in heads]
        self._slots: queue.LifoQueue[_Slot] = queue.LifoQueue()
        for _ in range(slots):
            self._slots.put(_Slot(*(graph.create_infer_request() for graph in (self._network, *compiled))))

    def mask(self, image: np.ndarray) -> np.ndarray:
        """Return the likeliest class of every pixel: uint8 RGB (H, W, 3) to uint8 (H, W)."""
        answer = np.empty(image.shape[:2], np.uint8)
        with self._slot(image) as slot:
            for rows, band in slot.resize(slot.mask, slot.coarse_logits(image), image.shape[:2]):
                answer[rows] = band
        return answer

    def probabilities(self, image: np.ndarray) -> np.ndarray:
        """Return the probability of every class at every pixel: uint8 RGB (H, W, 3) to float32 (num_classes, H, W)."""
        answer = np.empty((self.num_classes, *image.shape[:2]), np.float32)
        with self._slot(image) as slot:
            for rows, band in slot.resize(slot.probabilities, slot.coarse_logits(image), image.shape[:2]):
                answer[:, rows] = band
        return answer

    def warm(self) -> None:
        """Answer once, so that the first request does not pay for what is set up lazily."""
        image = np.zeros((_WARM_SIZE, _WARM_SIZE, 3), np.uint8)
        self.mask(image)
        self.probabilities(image)

    @contextlib.contextmanager
    def _slot(self, image: np.ndarray) -> Iterator[_Slot]:
        slot = self._slots.get()
        try:
            yield slot
        finally:
            self._slots.put(slot)
            if image.shape[0] * image.shape[1] > _LARGE_IMAGE:
                self._network.release_memory()  # it would stay as large as the largest image so far


class _Slot:
    """What one image needs while it is answered: requests of the network and of both heads."""

    def __init__(self, network: Any, mask: Any, probabilities: Any) -> None:
        self.network = network
        self.mask = mask
        self.probabilities = probabilities

    def coarse_logits(self, image: np.ndarray) -> np.ndarray:
        """Return the logits at an eighth of the size, (1, num_classes, h, w), valid until the next call."""
        inputs = [np.ascontiguousarray(image)[None]]
        logits: np.ndarray = self.network.infer(inputs, share_inputs=True, share_outputs=True)[0]
        return logits

    def resize(self, head: Any, logits: np.ndarray, size: tuple[int, ...]) -> Iterator[tuple[slice, np.ndarray]]:
        """Give the head's answer to the resized logits in bands of rows: (the rows, the answer for them)."""
        height, width = size
        places = np.arange(height) * ((logits.shape[2] - 1) / max(height - 1, 1))
        above = places.astype(np.int32)
        below = np.minimum(above + 1, logits.shape[2] - 1)
        shares = (places - above).astype(np.float32)[:, None]
        step = max(1, _BAND_VALUES // (logits.shape[1] * width))
        for start in range(0, height, step):
            rows = slice(start, min(start + step, height))
            extent = np.array([rows.stop - rows.start, width])
            inputs = [logits, above[rows], below[rows], shares[rows], extent]
            yield rows, head.infer(inputs, share_inputs=True, share_outputs=True)[0][0]


def import_openvino() -> ModuleType:
    """Import OpenVINO without its model converter, which reports every import to Google Analytics.

    The telemetry package runs a process per event; on a network without a way out it hangs. OpenVINO itself does
    without the converter, and is imported in a tenth of the time.
    """
    sys.modules.setdefault("openvino.tools.ovc", None)  # type: ignore[arg-type]
    import openvino

    return openvino


def prepare_graph(model_dir: Path, precision: str, scratch: Path) -> Path:
    """Return the path of the model's graph; for an archive without one, a child process writes it into `scratch`.

    Raises ClientError when the archive has no int8 graph but `precision` asks for it, or holds no usable model.
    """
    if precision == "int8":
        graph = model_dir / INT8_GRAPH
        if not graph.is_file():
            raise ClientError(
                f"SERVE_PRECISION=int8: {graph} is missing; train with _quantize=True, quantize the archive by "
                "python -m container.engines.quantize, or serve with SERVE_PRECISION=auto"
            )
        return graph
    if (model_dir / GRAPH).is_file():
        return model_dir / GRAPH
    command = [sys.executable, "-m", "container.mx.convert", str(model_dir), str(scratch / GRAPH)]
    child = subprocess.run(command, cwd=Path(__file__).parents[2], stderr=subprocess.PIPE, text=True, check=False)
    if child.returncode:
        reason = (child.stderr.strip().splitlines() or [f"exit status {child.returncode}"])[-1]
        raise ClientError(f"{model_dir} could not be converted to {GRAPH}: {reason.removeprefix('ClientError: ')}")
    return scratch / GRAPH


def _choose_precision(core: Any, precision: str) -> str:
    """Return float32, bfloat16 or int8; `auto` is bfloat16 where the processor computes in it."""
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
        return openvino.Model([coarse], model.get_parameters())
    except (RuntimeError, StopIteration) as error:
        reason = str(error).strip().splitlines() or ["it has no tensor coarse_logits"]
        raise ClientError(f"{graph} is not a graph that train wrote: {reason[-1]}") from error


def _mask_head(openvino: ModuleType, num_classes: int) -> Any:
    opset = openvino.opset13
    resized, parameters = _resized(openvino, num_classes)
    one = opset.constant(np.int32(1))
    best = opset.topk(resized, one, axis=1, mode="max", sort="none", index_element_type="i32").output(1)
    return openvino.Model([opset.convert(opset.squeeze(best, one), "u8")], parameters)


def _probability_head(openvino: ModuleType, num_classes: int) -> Any:
    resized, parameters = _resized(openvino, num_classes)
    return openvino.Model([openvino.opset13.softmax(resized, 1)], parameters)


def _resized(openvino: ModuleType, num_classes: int) -> tuple[Any, list[Any]]:
    """Resize a band of rows bilinearly: down by the rows above and below and their shares, across by its size."""
    opset, rows = openvino.opset13, np.int32(2)
    logits = opset.parameter([1, num_classes, -1, -1], np.float32)
    above, below = opset.parameter([-1], np.int32), opset.parameter([-1], np.int32)
    shares, extent = opset.parameter([-1, 1], np.float32), opset.parameter([2], np.int64)
    upper, lower = (opset.gather(logits, place, opset.constant(rows)) for place in (above, below))
    band = opset.add(upper, opset.multiply(opset.subtract(lower, upper), shares))
    axes = opset.constant(np.array([2, 3]))
    corners = {"coordinate_transformation_mode": "align_corners", "axes": axes}
    wide = opset.interpolate(band, extent, "linear_onnx", "sizes", **corners)
    return wide, [logits, above, below, shares, extent]
