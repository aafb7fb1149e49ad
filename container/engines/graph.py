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
_METADATA = (["framework", "window"], ["framework", "overlap"])  # where OpenVINO puts ONNX's
_NARROW = 512  # channels of the widest layer of the small backbones


def import_openvino() -> ModuleType:
    """Import OpenVINO without its model converter, which reports every import to Google Analytics.

    The telemetry package runs a process per event; on a network without a way out it hangs. OpenVINO itself does
    without the converter, and is imported in a tenth of the time.
    """
    sys.modules.setdefault("openvino.tools.ovc", None)  # type: ignore[arg-type]
    import openvino

    module: ModuleType = openvino
    return module


def read_model(openvino: ModuleType, graph: Path) -> Any:
    """Read the graph for one image at a time, up to the logits at an eighth of the size."""
    try:
        try:  # not by Core.read_model, which shows the file to every frontend, and they print what they find in it
            frontend = importlib.import_module("openvino.frontend").FrontEndManager().load_by_framework("onnx")
            model = frontend.convert(frontend.load(graph))
        except Exception as error:  # the frontend has classes of its own, of nothing more special
            raise RuntimeError("it is damaged, or no ONNX") from error
        model = _up_to_coarse_logits(openvino, model)
    except (RuntimeError, StopIteration) as error:
        raise foreign(graph, error) from error
    if name := _name_of_weights_that_are_not_finite(model):
        remedy = "it is damaged, or of a training that diverged; unpack the job's model.tar.gz anew"
        raise ClientError(f"{graph} holds weights that are not finite ({name}): {remedy}")
    return model


def read_model_again(core: Any, graph: Path) -> Any:
    """Read a graph that `read_model` has read before, without its checks.

    `Core.read_model` releases Python's interpreter lock, which the frontend holds for up to a second.
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


def _name_of_weights_that_are_not_finite(model: Any) -> str:
    """Return the first such constant's name: a ReLU makes 0 of NaN, so that no answer would show it."""
    for node in model.get_ops():
        is_float = node.get_type_name() == "Constant" and node.get_element_type().get_type_name() == "f32"
        if is_float and not np.isfinite(node.get_data().sum(dtype=np.float64)):
            return str(node.get_friendly_name())
    return ""


def read_windows(model: Any, graph: Path) -> Windows | None:
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


def is_narrow(model: Any) -> bool:
    """Tell the small backbones from the large ones by the widest convolution."""
    convolutions = [node for node in model.get_ops() if node.get_type_name() == "Convolution"]
    widest = max((node.input(1).get_partial_shape()[0].get_length() for node in convolutions), default=_NARROW + 1)
    return widest <= _NARROW


def find_decoder(model: Any) -> str:
    """Tell fastscnn by its depthwise convolutions, and the decoders by what they resize within the network.

    That is nothing in fcn, one pooling in deeplab, several in psp.
    """
    if any(node.get_type_name() == "GroupConvolution" for node in model.get_ops()):
        return "fastscnn"
    resized = sum(node.get_type_name() == "Interpolate" for node in model.get_ops())
    return ("fcn", "deeplab", "psp")[min(resized, 2)]


def foreign(graph: Path, error: Exception) -> ClientError:
    """Return the error for a file that is no graph of `container.mx.export`, or not a whole one."""
    reason = "it has no tensor coarse_logits" if isinstance(error, StopIteration) else last_line(error)
    return ClientError(f"{graph} is not a graph that train wrote: {reason}")


def reach(model: Any) -> int | None:
    """Return how many pixels to each side an OpenVINO model's answer depends on; None when on all of them."""
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
