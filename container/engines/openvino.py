"""The engine for CPUs: the exported graph in OpenVINO, one copy of the weights for all cores, without MXNet."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import queue
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from container import artifacts, disk
from container.arrays import Array, Float32Array, Uint8Array
from container.engines import heads, tiles
from container.engines.costs import STANDING, Costs
from container.engines.protocol import Plan, Stop
from container.errors import ClientError, last_line
from container.windows import Windows, likeliest

PRECISIONS = ("auto", "float32", "bfloat16", "int8")

_WARM_SIZE = 64
_METADATA = (["framework", "window"], ["framework", "overlap"])  # where OpenVINO puts ONNX's
_NARROW = 512  # channels of the widest layer of the small backbones


class OpenVinoEngine:
    """An ONNX graph of `container.mx.export`, ready to answer from several threads.

    `slots` images are computed at once, each on its share of the `threads`; further callers wait. Raises ClientError
    when the graph is unusable, or when the processor lacks the precision asked for.
    """

    def __init__(self, graph: Path, precision: str = "auto", *, threads: int, slots: int = 1) -> None:
        openvino = import_openvino()
        core = openvino.Core()
        self._graph = graph
        self.precision = _choose_precision(core, precision)
        model = _read_model(openvino, graph)
        self.num_classes: int = model.output(0).get_partial_shape()[1].get_length()
        size = graph.stat().st_size
        seen = self.num_classes, tiles.reach(model), self.precision, _decoder(model)
        costs = Costs.of(*seen, is_narrow=_is_narrow(model), graph=size)
        self.planner = dataclasses.replace(costs, windows=_read_windows(model, graph) if costs.reach is None else None)
        self.standing = slots * STANDING
        self.memory = self.planner.loaded
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
        self._compiled = (self._network, mask, probabilities)
        self._is_swollen = False
        self._slots: queue.SimpleQueue[_Slot] = queue.SimpleQueue()
        for _ in range(slots):
            self._slots.put(_Slot(*(model.create_infer_request() for model in self._compiled)))

    def mask(self, image: Uint8Array, plan: Plan | None = None, stop: Stop | None = None) -> Array:
        """Return the likeliest class of every pixel: uint8 RGB (H, W, 3) to uint8 (H, W)."""
        stop = stop or Stop()
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

    def probabilities(self, image: Uint8Array, plan: Plan | None = None, stop: Stop | None = None) -> Array:
        """Return the probability of every class at every pixel: uint8 RGB (H, W, 3) to float32 (num_classes, H, W)."""
        stop = stop or Stop()
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
        expected = (1, self.num_classes, _WARM_SIZE // tiles.STRIDE, _WARM_SIZE // tiles.STRIDE)
        try:
            with self._slot(image, None, "mask") as slot:
                shape = self._coarse_logits(slot, image, None, Stop()).shape
            if shape != expected:
                raise RuntimeError(f"its coarse_logits have the shape {shape} instead of {expected}")
            self.mask(image)
            self.probabilities(image)
        except RuntimeError as error:
            raise _foreign(self._graph, error) from error

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

    def _scores(self, slot: _Slot, image: Uint8Array, plan: Plan | None = None, stop: Stop | None = None) -> Array:
        """Return the probabilities of an image, or of a window of one, in an array of their own."""
        stop = stop or Stop()
        answer = np.empty((self.num_classes, *image.shape[:2]), np.float32)
        logits = self._coarse_logits(slot, image, plan, stop)
        for rows, band in heads.resize(slot.probabilities, logits, image.shape[:2]):
            stop.check()
            answer[:, rows] = band
        return answer

    def _coarse_logits(self, slot: _Slot, image: Uint8Array, plan: Plan | None, stop: Stop) -> Array:
        """Return the logits at an eighth of the size, (1, num_classes, h, w), valid until the slot's next image."""
        reach, tile_pixels = self.planner.reach, plan.tile if plan else self.planner.usual_tile
        if reach is None or tile_pixels is None or image.shape[0] * image.shape[1] <= tile_pixels:
            return _infer(slot.network, image, stop)
        logits = np.empty((1, self.num_classes, *(-(-side // tiles.STRIDE) for side in image.shape[:2])), np.float32)
        for tile in tiles.split(image.shape[0], image.shape[1], reach, tile_pixels):
            whole, part = (slice(None), slice(None), *tile.outer), (slice(None), slice(None), *tile.inner)
            logits[whole] = _infer(slot.network, image[tile.image], stop)[part]
        return logits

    @contextlib.contextmanager
    def _slot(self, image: Uint8Array, plan: Plan | None, needs: str) -> Iterator[_Slot]:
        slot, pixels = self._slots.get(), image.shape[0] * image.shape[1]
        try:
            yield slot
        finally:
            self._slots.put(slot)
            seen = min(pixels, plan.tile or pixels) if plan else pixels
            if windows := self._windows(image):
                seen = pixels = windows.largest(*image.shape[:2])
            self._is_swollen = self._is_swollen or self.planner.held(seen, pixels, needs) > STANDING
            if self._is_swollen:
                self.release()  # it would stay as large as the largest image so far


@dataclasses.dataclass(frozen=True)
class _Slot:
    """What one image needs while it is answered: requests of the network and of both heads."""

    network: Any
    mask: Any
    probabilities: Any


def _read_windows(model: Any, graph: Path) -> Windows | None:
    """Read from the graph's metadata in which windows large images are computed; None when at once."""
    side, overlap = (model.get_rt_info(path).value if model.has_rt_info(path) else None for path in _METADATA)
    if side is None and overlap is None:
        return None
    try:
        windows = Windows(int(side or ""), float(overlap or ""))
        if windows.side < 1 or not 0 <= windows.overlap < 1:
            raise ValueError
    except ValueError:
        told = f"its metadata say window {side}, overlap {overlap}"
        raise ClientError(f"{graph} is not a graph that train wrote: {told}") from None
    return windows


def _is_narrow(model: Any) -> bool:
    """Tell the small backbones from the large ones by the widest convolution."""
    convolutions = [node for node in model.get_ops() if node.get_type_name() == "Convolution"]
    widest = max((node.input(1).get_partial_shape()[0].get_length() for node in convolutions), default=_NARROW + 1)
    return widest <= _NARROW


def _decoder(model: Any) -> str:
    """Tell fastscnn by its depthwise convolutions, and the decoders by what they resize within the network.

    That is nothing in fcn, one pooling in deeplab, several in psp.
    """
    if any(node.get_type_name() == "GroupConvolution" for node in model.get_ops()):
        return "fastscnn"
    resized = sum(node.get_type_name() == "Interpolate" for node in model.get_ops())
    return ("fcn", "deeplab", "psp")[min(resized, 2)]


def _infer(network: Any, image: Uint8Array, stop: Stop) -> Array:
    """Return the network's answer, whose computation is not to be interrupted.

    InferRequest.cancel() of OpenVINO 2026.4 must not be used: after it the next inference, even of another request,
    gave the cancelled image's answer, or the process died.
    """
    stop.check()
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


def conversion_memory(weights: int) -> int:
    """Return how many bytes the process takes that makes a graph of so many bytes of weights."""
    return 2**28 + 6 * weights


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
        reason = _why_not_converted(child, model_dir / artifacts.BEST_WEIGHTS, scratch)
        raise ClientError(f"{model_dir} could not be converted to {artifacts.GRAPH}: {reason}")
    return scratch / artifacts.GRAPH


def _why_not_converted(child: subprocess.CompletedProcess[str], weights: Path, scratch: Path) -> str:
    """Say why the child that converts has failed, and what to do about it where it is for want of memory or room."""
    size = weights.stat().st_size if weights.is_file() else 0
    instead = f"an archive that holds {artifacts.GRAPH} (python -m container.mx.convert)"
    if child.returncode == -signal.SIGKILL:
        megabytes = conversion_memory(size) // 2**20
        return (
            f"the process was killed, most likely for want of memory: it takes {megabytes} MB; give it more memory, "
            f"or {instead}"
        )
    reason = last_line(child.stderr) or f"exit status {child.returncode}"
    free = disk.free_bytes(scratch)
    if disk.FULL in reason and free is not None:  # whose remedy is for a job; the graph is as large as the weights
        return (
            f"{scratch.parent} has room for {free // 2**20} MB, and it takes about {size // 2**20}: mount a larger one "
            f"(docker run --tmpfs /tmp), or give it {instead}"
        )
    return reason.removeprefix("ClientError: ")


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


def _read_model(openvino: ModuleType, graph: Path) -> Any:
    """Read the graph for one image at a time, up to the logits at an eighth of the size."""
    try:
        try:  # not by Core.read_model, which shows the file to every frontend, and they print what they find in it
            frontend = importlib.import_module("openvino.frontend").FrontEndManager().load_by_framework("onnx")
            model = frontend.convert(frontend.load(graph))
        except Exception as error:  # the frontend has classes of its own, of nothing more special
            raise RuntimeError("it is damaged, or no ONNX") from error
        coarse = next(o for node in model.get_ops() for o in node.outputs() if "coarse_logits" in o.get_names())
        model.reshape([1, -1, -1, 3])
        (image,) = model.get_parameters()
        if image.get_element_type() != openvino.Type.u8 or coarse.get_element_type() != openvino.Type.f32:
            raise RuntimeError("it does not make float32 of uint8")
        whole, model = model, openvino.Model([coarse], [image])
        for path in filter(whole.has_rt_info, _METADATA):
            model.set_rt_info(whole.get_rt_info(path).value, path)
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
