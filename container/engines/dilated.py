"""Dilated convolutions for AMX: the sum of nine 1×1 convolutions, each shifted."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np

from container.arrays import Array

# Where the nine convolutions are faster. 2048 to 256 channels on 60×60 cells, in CPU milliseconds with AMX: 217 and 97
# with rate 6, 398 and 193 with rate 12, 777 and 195 with rate 36. With 512 channels or rate 4, they are up to 1.4 times
# slower. deeplab with resnet-50 on 480×480 pixels: 1645 and 464.
_LEAST_CHANNELS, _LEAST_RATE = 1024, 6


def replace_dilated_convolutions(openvino: ModuleType, model: Any) -> int:
    """Replace 3×3 convolutions with many channels and a large dilation in an OpenVINO model; returns their number.

    The result is equal up to the order of the additions. It is faster only in bfloat16 on processors with AMX, whose
    kernels for such convolutions read the input in small pieces.
    """
    convolutions = [node for node in model.get_ordered_ops() if _is_dilated(node)]
    for node in convolutions:
        rate, kernel = node.get_attributes()["dilations"][0], node.input_value(1).get_node().get_data()
        total = _add_taps(openvino.opset13, node.input_value(0), kernel, rate)
        for target in node.output(0).get_target_inputs():
            target.replace_source_output(total.output(0))
    return len(convolutions)


def _is_dilated(node: Any) -> bool:
    if node.get_type_name() != "Convolution" or node.input_value(1).get_node().get_type_name() != "Constant":
        return False
    _, channels, *kernel = node.input(1).get_shape()
    settings = node.get_attributes()
    rate = settings["dilations"][0]
    sides = [rate, rate]
    is_same = settings["dilations"] == settings["pads_begin"] == settings["pads_end"] == sides
    is_plain = kernel == [3, 3] and settings["strides"] == [1, 1]
    return bool(is_same and is_plain and channels >= _LEAST_CHANNELS and rate >= _LEAST_RATE)


def _add_taps(opset: ModuleType, features: Any, kernel: Array, rate: int) -> Any:
    """Return the convolution of `features` (1, C, H, W) with `kernel` (outputs, C, 3, 3), dilated and padded by `rate`.

    The results are shifted, not the features, because they have fewer channels: that takes a third of the memory.
    """
    total = None
    for row in (1, 0, 2):
        for column in (1, 0, 2):
            weights = np.ascontiguousarray(kernel[:, :, row : row + 1, column : column + 1])
            part = opset.convolution(features, opset.constant(weights), [1, 1], [0, 0], [0, 0], [1, 1])
            above = np.array([max(0, 1 - row), max(0, 1 - column)]) * rate
            below = np.array([max(0, row - 1), max(0, column - 1)]) * rate
            padded = opset.pad(part, np.array([0, 0, *above]), np.array([0, 0, *below]), "constant", np.float32(0))
            last = np.where(above, -above, np.iinfo(np.int64).max)  # from the end
            part = opset.slice(padded, below, last, np.array([1, 1]), np.array([2, 3]))
            total = part if total is None else opset.add(total, part)
    return total
