"""Loading of an ONNX model into OpenVINO, and its metadata."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from container.errors import ClientError, last_line
from container.geometry.windows import Windows

_WINDOWED = ("Convolution", "MaxPool")
_LOCAL = (
    *("Parameter", "Result", "Constant", "Convert", "ShapeOf", "Broadcast", "Reshape", "Concat", "Transpose"),
    *("Add", "Subtract", "Multiply", "Relu", "FakeQuantize"),
)
_METADATA = (["framework", "window"], ["framework", "overlap"])  # path of ONNX metadata in OpenVINO
_NARROW = 512  # channels of the widest layer of the small backbones


def import_openvino() -> ModuleType:
    """Import OpenVINO without its model converter, which reports every import to Google Analytics.

    The telemetry package starts a process per event, which hangs on a network without internet access. OpenVINO does
    not need the converter, and the import takes a tenth of the time without it.
    """
    sys.modules.setdefault("openvino.tools.ovc", None)  # type: ignore[arg-type]
    import openvino

    module: ModuleType = openvino
    return module


def read_model(openvino: ModuleType, graph: Path) -> Any:
    """Read the ONNX model for one image at a time, up to the logits at an eighth of the size; raises ClientError."""
    try:
        try:  # Core.read_model tries all frontends, and they print messages
            frontend = importlib.import_module("openvino.frontend").FrontEndManager().load_by_framework("onnx")
            model = frontend.convert(frontend.load(graph))
        except Exception as error:  # the exception classes of the frontend have no narrower base class
            raise RuntimeError("it is corrupt, or not an ONNX model") from error
        model = _up_to_coarse_logits(openvino, model)
    except (RuntimeError, StopIteration) as error:
        raise foreign(graph, error) from error
    if name := _find_invalid_weights(model):
        raise ClientError(
            f"{graph} contains weights that are not finite ({name}). It is corrupt, or its training diverged. "
            "Extract the model.tar.gz of the job again."
        )
    return model


def read_model_again(core: Any, graph: Path) -> Any:
    """Read an ONNX model that `read_model` has already checked.

    `Core.read_model` releases the Python interpreter lock, which the frontend holds for up to a second.
    """
    return _up_to_coarse_logits(import_openvino(), core.read_model(graph))


def _up_to_coarse_logits(openvino: ModuleType, whole: Any) -> Any:
    coarse = next(o for node in whole.get_ops() for o in node.outputs() if "coarse_logits" in o.get_names())
    whole.reshape([1, -1, -1, 3])
    (image,) = whole.get_parameters()
    if image.get_element_type() != openvino.Type.u8 or coarse.get_element_type() != openvino.Type.f32:
        raise RuntimeError("it does not make float32 of uint8")
    model = openvino.Model([coarse], [image])
    for path in filter(whole.has_rt_info, _METADATA):
        model.set_rt_info(whole.get_rt_info(path).value, path)
    return model


def _find_invalid_weights(model: Any) -> str:
    """Return the first constant that is not finite. The output can look valid, because a ReLU turns NaN into 0."""
    for node in model.get_ops():
        is_float = node.get_type_name() == "Constant" and node.get_element_type().get_type_name() == "f32"
        if is_float and not np.isfinite(node.get_data().sum(dtype=np.float64)):
            return str(node.get_friendly_name())
    return ""


def read_windows(model: Any, graph: Path) -> Windows | None:
    """Read the sliding windows for large images from the metadata; None if the model processes full images."""
    side, overlap = (model.get_rt_info(path).value if model.has_rt_info(path) else None for path in _METADATA)
    if side is None and overlap is None:
        return None
    try:
        windows = Windows(int(side or ""), float(overlap or ""))
        if windows.side < 1 or not 0 <= windows.overlap < 1:
            raise ValueError
    except ValueError:
        raise foreign(graph, f"its metadata contains window {side} and overlap {overlap}") from None
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


def foreign(graph: Path, error: Exception | str) -> ClientError:
    """Return the error for a file that is not a valid ONNX model of `container.mx.export`."""
    reason = "it has no tensor coarse_logits" if isinstance(error, StopIteration) else error
    reason = last_line(reason) if isinstance(reason, Exception) else reason
    return ClientError(f"{graph} is not an ONNX model of a training job: {reason}")


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
