"""Export of a model to ONNX.

Input `image`: uint8 RGB (N, H, W, 3), any size. Outputs: `logits`, float32 (N, num_classes, H, W), and `mask`, uint8
(N, H, W), the most likely class of every pixel. To limit memory, an engine can end the graph at the tensor
`coarse_logits`, the logits before the last resize. The metadata contain the sliding windows for large images: `window`,
the side in pixels, and `overlap`.

The exporter of MXNet (`mx.onnx`) is not used because it does not support a resize to the size of another tensor or
pooling into more than one bin, and because it uses removed parts of `onnx` (`onnx.mapping`).
"""

from __future__ import annotations

import ast
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from container.arrays import Array
from container.artifact import model_directory
from container.mx.networks.segmentation import SegmentationNetwork

OPSET, IR_VERSION = 17, 8  # matching versions, supported by ONNX Runtime since 1.12 and OpenVINO since 2022


def export_onnx(network: SegmentationNetwork, path: Path) -> None:
    """Write the main branch of the model to `path`, completely or not at all."""
    model_directory.write_bytes(path, translate(network).SerializeToString())


def translate(network: SegmentationNetwork) -> onnx.ModelProto:
    """Return the main branch of the model as a checked ONNX model, with the weights as float32 constants."""
    symbol = json.loads(network(mx.sym.var("image")).tojson())
    parameters = network.collect_params()
    names = [node["name"] for node in symbol["nodes"] if node["op"] == "null" and node["name"] in parameters]
    graph = _Graph({name: parameters[name].list_data()[0].asnumpy().astype(np.float32) for name in names})
    tensors: dict[tuple[int, int], str] = {}
    for index, node in enumerate(symbol["nodes"]):
        if node["op"] not in _TRANSLATIONS:
            raise NotImplementedError(f"{node['op']} ({node['name']}) has no translation to ONNX")
        inputs = [tensors[parent, output] for parent, output, *_ in node["inputs"]]
        attributes = {key: _literal(value) for key, value in node.get("attrs", {}).items()}
        outputs = _TRANSLATIONS[node["op"]](graph, node["name"], inputs, attributes)
        tensors.update({(index, position): tensor for position, tensor in enumerate(outputs)})
    last, output, *_ = symbol["heads"][0]
    model = graph.assemble(tensors[last, output])
    if network.windows:
        helper.set_model_props(model, {"window": str(network.windows.side), "overlap": str(network.windows.overlap)})
    onnx.checker.check_model(model, full_check=True)
    return model


class _Graph:
    """ONNX graph under construction: nodes by the name of their only output, and constants by name."""

    def __init__(self, constants: dict[str, Array]) -> None:
        self.nodes: dict[str, onnx.NodeProto] = {}
        self.constants = constants

    def add(self, operator: str, name: str, inputs: list[str], **attributes: Any) -> str:
        """Append a node; returns the name of its output, which is the name of the node."""
        self.nodes[name] = helper.make_node(operator, inputs, [name], name=name, **attributes)
        return name

    def constant(self, name: str, value: Any) -> str:
        """Add a constant, as float32 unless it has integers; returns its name."""
        array = np.asarray(value)
        self.constants[name] = array if array.dtype == np.int64 else array.astype(np.float32)
        return name

    def assemble(self, resize: str) -> onnx.ModelProto:
        """Return the model whose last node is the resize with this name."""
        coarse = self.nodes[resize].input[0]
        best = self.add("ArgMax", "mask_classes", [resize], axis=1, keepdims=0)
        self.add("Cast", "mask", [best], to=TensorProto.UINT8)
        names = {coarse: "coarse_logits", resize: "logits"}
        for node in self.nodes.values():
            node.input[:] = [names.get(name, name) for name in node.input]
            node.output[:] = [names.get(name, name) for name in node.output]
        used = {name for node in self.nodes.values() for name in node.input}
        constants = [numpy_helper.from_array(value, name) for name, value in self.constants.items() if name in used]
        num_classes = len(self.constants[self.nodes[coarse].input[1]])
        image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", "height", "width", 3])
        logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", num_classes, "height", "width"])
        mask = helper.make_tensor_value_info("mask", TensorProto.UINT8, ["batch", "height", "width"])
        graph = helper.make_graph(list(self.nodes.values()), "segmentation", [image], [logits, mask], constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)


def _to_tensor(graph: _Graph, name: str, inputs: list[str], attributes: dict[str, Any]) -> list[str]:
    floats = graph.add("Cast", f"{name}_floats", inputs, to=TensorProto.FLOAT)
    planes = graph.add("Transpose", f"{name}_planes", [floats], perm=[0, 3, 1, 2])
    return [graph.add("Mul", name, [planes, graph.constant(f"{name}_factor", 1 / 255)])]


def _normalize(graph: _Graph, name: str, inputs: list[str], attributes: dict[str, Any]) -> list[str]:
    mean = graph.constant(f"{name}_mean", np.reshape(attributes["mean"], (3, 1, 1)))
    scale = graph.constant(f"{name}_factor", 1 / np.reshape(attributes["std"], (3, 1, 1)))
    return [graph.add("Mul", name, [graph.add("Sub", f"{name}_centered", [*inputs, mean]), scale])]


def _convolve(graph: _Graph, name: str, inputs: list[str], attributes: dict[str, Any]) -> list[str]:
    settings = {**_window(attributes), "dilations": attributes.get("dilate", (1, 1)), "group": attributes["num_group"]}
    if max(settings["kernel_shape"]) > 1 and not any(settings["pads"]):
        inputs = [_repeat_edge(graph, name, inputs[0], settings["kernel_shape"]), *inputs[1:]]
    return [graph.add("Conv", name, inputs, **settings)]


def _repeat_edge(graph: _Graph, name: str, data: str, least: tuple[int, int]) -> str:
    """Repeat the last row and column up to `least`, the kernel size, as FastNetwork does."""
    extent = graph.add("Shape", f"{name}_extent", [data], start=2, end=4)
    lacking = graph.add("Sub", f"{name}_lacking", [graph.constant(f"{name}_least", np.array(least, np.int64)), extent])
    ends = graph.add("Max", f"{name}_ends", [lacking, graph.constant(f"{name}_none", np.zeros(2, np.int64))])
    begins = graph.constant(f"{name}_begins", np.zeros(6, np.int64))  # begins of all axes, and ends of the first two
    pads = graph.add("Concat", f"{name}_pads", [begins, ends], axis=0)
    return graph.add("Pad", f"{name}_padded", [data, pads], mode="edge")


def _fold_batch_norm(graph: _Graph, name: str, inputs: list[str], attributes: dict[str, Any]) -> list[str]:
    """Fold the statistics into the weights of the previous convolution, whose output these models use only here."""
    data, *parameters = inputs
    gamma, beta, mean, variance = (graph.constants[parameter].astype(np.float64) for parameter in parameters)
    scale = (1 if attributes["fix_gamma"] else gamma) / np.sqrt(variance + attributes["eps"])
    convolution = graph.nodes[data]
    weight, *bias = convolution.input[1:]
    shift = beta + ((graph.constants[bias[0]] if bias else 0) - mean) * scale
    graph.constant(weight, graph.constants[weight] * scale[:, None, None, None])
    convolution.input[2:] = [graph.constant(f"{name}_shift", shift)]
    return [data]


def _pool(graph: _Graph, name: str, inputs: list[str], attributes: dict[str, Any]) -> list[str]:
    if attributes["global_pool"] and attributes["pool_type"] == "avg":
        return [graph.add("GlobalAveragePool", name, inputs)]
    if attributes["pool_type"] != "max" or attributes["pooling_convention"] != "valid":
        raise NotImplementedError(f"this kind of pooling is not supported: {name}")
    return [graph.add("MaxPool", name, inputs, **_window(attributes))]


def _pool_adaptively(graph: _Graph, name: str, inputs: list[str], attributes: dict[str, Any]) -> list[str]:
    """Average over a grid of bins with two matrices, whose sizes depend on the input at run time."""
    rows = _bins(graph, f"{name}_rows", inputs[0], 2, attributes["output_size"])
    columns = _bins(graph, f"{name}_columns", inputs[0], 3, attributes["output_size"])
    transposed = graph.add("Transpose", f"{name}_columns_transposed", [columns], perm=[1, 0])
    narrowed = graph.add("MatMul", f"{name}_narrowed", [inputs[0], transposed])
    return [graph.add("MatMul", name, [rows, narrowed])]


def _bins(graph: _Graph, name: str, data: str, axis: int, bins: int) -> str:
    """Add the matrix (bins, size) that averages `axis` of `data` from floor(i·size/bins) to ceil((i+1)·size/bins)."""

    def add(operator: str, suffix: str, *inputs: str, **attributes: Any) -> str:
        return graph.add(operator, f"{name}_{suffix}", list(inputs), **attributes)

    number = graph.constant(f"{name}_bins", np.int64(bins))
    size = add("Gather", "size", add("Shape", "shape", data), graph.constant(f"{name}_axis", np.int64(axis)))
    ends = add("Mul", "ends", size, graph.constant(f"{name}_ordinals", np.arange(1, bins + 1)[:, None]))
    first = add("Div", "first", add("Sub", "starts", ends, size), number)
    rounded_up = add("Add", "rounded_up", ends, graph.constant(f"{name}_rounding", np.int64(bins - 1)))
    last = add("Div", "last", rounded_up, number)
    zero, one = graph.constant(f"{name}_zero", np.int64(0)), graph.constant(f"{name}_one", np.int64(1))
    places = add("Range", "places", zero, size, one)
    inside = add("And", "inside", add("GreaterOrEqual", "from", places, first), add("Less", "below", places, last))
    counts = add("Cast", "counts", add("Sub", "lengths", last, first), to=TensorProto.FLOAT)
    return add("Div", "weights", add("Cast", "ones", inside, to=TensorProto.FLOAT), counts)


def _resize_like(graph: _Graph, name: str, inputs: list[str], attributes: dict[str, Any]) -> list[str]:
    """Resize to the height and width of the second input, with aligned corners."""
    data, like = inputs
    channels = graph.add("Shape", f"{name}_channels", [data], start=0, end=2)
    extent = graph.add("Shape", f"{name}_extent", [like], start=2, end=4)
    sizes = graph.add("Concat", f"{name}_sizes", [channels, extent], axis=0)
    corners = {"mode": "linear", "coordinate_transformation_mode": "align_corners"}
    return [graph.add("Resize", name, [data, "", "", sizes], **corners)]


def _window(attributes: dict[str, Any]) -> dict[str, Any]:
    padding = attributes.get("pad", (0, 0))
    return {
        "kernel_shape": attributes["kernel"],
        "strides": attributes.get("stride", (1, 1)),
        "pads": (*padding, *padding),
    }


def _literal(text: str) -> Any:
    """Parse an attribute in the MXNet JSON: a number, tuple, Boolean value, or word."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


_TRANSLATIONS: dict[str, Callable[[_Graph, str, list[str], dict[str, Any]], list[str]]] = {
    "null": lambda graph, name, inputs, attributes: [name],  # the image, or a parameter
    "_image_to_tensor": _to_tensor,
    "_image_normalize": _normalize,
    "Convolution": _convolve,
    "BatchNorm": _fold_batch_norm,
    "_contrib_SyncBatchNorm": _fold_batch_norm,
    "Activation": lambda graph, name, inputs, attributes: [graph.add("Relu", name, inputs)],
    "Pooling": _pool,
    "_contrib_AdaptiveAvgPooling2D": _pool_adaptively,
    "elemwise_add": lambda graph, name, inputs, attributes: [graph.add("Add", name, inputs)],
    "Concat": lambda graph, name, inputs, attributes: [graph.add("Concat", name, inputs, axis=attributes["dim"])],
    "_contrib_BilinearResize2D": _resize_like,
    "BlockGrad": lambda graph, name, inputs, attributes: inputs,
    "Dropout": lambda graph, name, inputs, attributes: inputs,
    "amp_cast": lambda graph, name, inputs, attributes: inputs,  # left by training in float16
    "amp_multicast": lambda graph, name, inputs, attributes: inputs,
}
