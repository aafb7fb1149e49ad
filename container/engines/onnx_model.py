"""The ONNX model of model artifacts: export it if necessary, load it into OpenVINO, and read its properties."""

from __future__ import annotations

import importlib
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from container.artifact import disk, model_directory
from container.errors import ClientError, last_line
from container.geometry.windows import Windows

_WINDOWED = ("Convolution", "MaxPool")
_LOCAL = (
    *("Parameter", "Result", "Constant", "Convert", "ShapeOf", "Broadcast", "Reshape", "Concat", "Transpose"),
    *("Add", "Subtract", "Multiply", "Relu", "FakeQuantize"),
)
_METADATA = (["framework", "window"], ["framework", "overlap"])  # path of ONNX metadata in OpenVINO
_NARROW = 512  # channels of the widest layer of the small backbones


def conversion_memory(weights: int) -> int:
    """Return the bytes of memory that the process needs to export an ONNX model from `weights` bytes of weights."""
    return 2**28 + 6 * weights


def prepare_model(model_dir: Path, precision: str, scratch: Path) -> Path:
    """Return the path of the ONNX model; if it does not exist, a child process writes it into `scratch`.

    Raises ClientError if `precision` is int8 and there is no int8 model, or if the model artifacts are unusable.
    """
    if precision == "int8":
        model = model_dir / model_directory.INT8_GRAPH
        if not model.is_file():
            raise ClientError(
                f"SERVE_PRECISION=int8 needs {model}, which does not exist. Do one of the following: (1) Train with "
                "_quantize=True. (2) Run python -m container.engines.quantize. (3) Set SERVE_PRECISION=auto."
            )
        return _readable(model)
    if (model_dir / model_directory.GRAPH).is_file():
        return _readable(model_dir / model_directory.GRAPH)
    command = [sys.executable, "-m", "container.mx.convert", str(model_dir), str(scratch / model_directory.GRAPH)]
    child = subprocess.run(command, cwd=Path(__file__).parents[2], stderr=subprocess.PIPE, text=True, check=False)
    if child.returncode:
        reason = _explain_failure(child, model_dir / model_directory.BEST_WEIGHTS, scratch)
        raise ClientError(f"{model_directory.GRAPH} cannot be exported from {model_dir}: {reason}")
    return scratch / model_directory.GRAPH


def _readable(model: Path) -> Path:
    """Return the path; raises OSError if the file cannot be read, which OpenVINO reports as a corrupt file."""
    with model.open("rb") as file:
        file.read(1)
    return model


def _explain_failure(child: subprocess.CompletedProcess[str], weights: Path, scratch: Path) -> str:
    """Return why the child process failed, with the fix if memory or disk space was not enough."""
    size = weights.stat().st_size if weights.is_file() else 0
    instead = f"use model artifacts that contain {model_directory.GRAPH} (python -m container.mx.convert)"
    if child.returncode == -signal.SIGKILL:
        megabytes = conversion_memory(size) // 2**20
        return (
            f"the export process was killed, probably because it needs {megabytes} MB of memory. Use more memory, or "
            f"{instead}."
        )
    reason = last_line(child.stderr) or f"exit status {child.returncode}"
    free = disk.free_bytes(scratch)
    if disk.FULL in reason and free is not None:  # its fix is for a job; the ONNX model is as large as the weights
        return (
            f"{scratch.parent} has {free // 2**20} MB of free space, and it needs about {size // 2**20}. Mount a "
            f"larger file system (docker run --tmpfs /tmp), or {instead}."
        )
    return reason.removeprefix("ClientError: ")


def import_openvino() -> ModuleType:
    """Import OpenVINO without its model converter, which reports every import to Google Analytics.

    The telemetry package starts a process per event, which hangs on a network without internet access. OpenVINO does
    not need the converter, and the import takes a tenth of the time without it.
    """
    sys.modules.setdefault("openvino.tools.ovc", None)  # type: ignore[arg-type]
    import openvino

    module: ModuleType = openvino
    return module


def read_model(openvino: ModuleType, path: Path) -> Any:
    """Read the ONNX model for one image at a time, up to the logits at an eighth of the size; raises ClientError."""
    try:
        try:  # Core.read_model tries all frontends, and they print messages
            frontend = importlib.import_module("openvino.frontend").FrontEndManager().load_by_framework("onnx")
            model = frontend.convert(frontend.load(path))
        except Exception as error:  # the exception classes of the frontend have no narrower base class
            raise RuntimeError("it is corrupt, or not an ONNX model") from error
        model = _up_to_coarse_logits(openvino, model)
    except (RuntimeError, StopIteration) as error:
        raise foreign(path, error) from error
    if name := _find_invalid_weights(model):
        raise ClientError(
            f"{path} contains weights that are not finite ({name}). It is corrupt, or its training diverged. "
            "Extract the model.tar.gz of the job again."
        )
    return model


def read_model_again(core: Any, path: Path) -> Any:
    """Read an ONNX model that `read_model` has already checked.

    `Core.read_model` releases the Python interpreter lock, which the frontend holds for up to a second.
    """
    return _up_to_coarse_logits(import_openvino(), core.read_model(path))


def _up_to_coarse_logits(openvino: ModuleType, whole: Any) -> Any:
    coarse = next(o for node in whole.get_ops() for o in node.outputs() if "coarse_logits" in o.get_names())
    whole.reshape([1, -1, -1, 3])
    (image,) = whole.get_parameters()
    if image.get_element_type() != openvino.Type.u8 or coarse.get_element_type() != openvino.Type.f32:
        raise RuntimeError("its input is not uint8, or its output is not float32")
    model = openvino.Model([coarse], [image])
    for key in filter(whole.has_rt_info, _METADATA):
        model.set_rt_info(whole.get_rt_info(key).value, key)
    return model


def _find_invalid_weights(model: Any) -> str:
    """Return the first constant that is not finite. The output can look valid, because a ReLU turns NaN into 0."""
    for node in model.get_ops():
        is_float = node.get_type_name() == "Constant" and node.get_element_type().get_type_name() == "f32"
        if is_float and not np.isfinite(node.get_data().sum(dtype=np.float64)):
            return str(node.get_friendly_name())
    return ""


def read_windows(model: Any, path: Path) -> Windows | None:
    """Read the sliding windows for large images from the metadata; None if the model processes full images."""
    side, overlap = (model.get_rt_info(key).value if model.has_rt_info(key) else None for key in _METADATA)
    if side is None and overlap is None:
        return None
    try:
        windows = Windows(int(side or ""), float(overlap or ""))
        if windows.side < 1 or not 0 <= windows.overlap < 1:
            raise ValueError
    except ValueError:
        raise foreign(path, f"its metadata contains window {side} and overlap {overlap}") from None
    return windows


def is_narrow(model: Any) -> bool:
    """Return whether the model has a small backbone, judged by the widest convolution."""
    convolutions = [node for node in model.get_ops() if node.get_type_name() == "Convolution"]
    widest = max((node.input(1).get_partial_shape()[0].get_length() for node in convolutions), default=_NARROW + 1)
    return widest <= _NARROW


def find_decoder(model: Any) -> str:
    """Return the decoder: fastscnn has depthwise convolutions, and the others differ in the number of resize nodes.

    fcn has none, deeplab has one after its pooling, and psp has several.
    """
    if any(node.get_type_name() == "GroupConvolution" for node in model.get_ops()):
        return "fastscnn"
    resized = sum(node.get_type_name() == "Interpolate" for node in model.get_ops())
    return ("fcn", "deeplab", "psp")[min(resized, 2)]


def foreign(path: Path, error: Exception | str) -> ClientError:
    """Return the error for a file that is not a valid ONNX model of `container.mx.export`."""
    reason = "it has no tensor coarse_logits" if isinstance(error, StopIteration) else error
    reason = last_line(reason) if isinstance(reason, Exception) else reason
    return ClientError(f"{path} is not an ONNX model of a training job: {reason}")


def reach(model: Any) -> int | None:
    """Return how far the logits of a pixel depend on other pixels, in pixels; None if on the entire image."""
    seen: dict[str, tuple[int, int]] = {}  # by node: the stride, and the reach in the image's pixels
    for node in model.get_ordered_ops():
        kind = node.get_type_name()
        if kind not in _WINDOWED + _LOCAL:
            return None
        sources = [source.get_source_output().get_node().get_name() for source in node.inputs()]
        stride = max((seen[source][0] for source in sources), default=1)
        far = max((seen[source][1] for source in sources), default=0)
        if kind in _WINDOWED:
            settings = node.get_attributes()
            kernel = settings["kernel"] if kind == "MaxPool" else list(node.input(1).get_shape())[2:]
            far += stride * (kernel[0] // 2) * settings["dilations"][0]
            stride *= settings["strides"][0]
        seen[node.get_name()] = (stride, far)
    return max(far for _, far in seen.values())
