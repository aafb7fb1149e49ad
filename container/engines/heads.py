"""Layers after the model in OpenVINO: upsampling, argmax, and softmax in float32.

A head processes one band of rows at a time, so that its memory does not grow with the image.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np

from container.arrays import Array, Float32Array
from container.geometry.tiles import STRIDE, coarse_size, places

BAND_VALUES = 2**24  # values that are resized at the same time: 64 MB


def band_values(num_classes: int, height: int, width: int) -> int:
    """Return how many values of an image are resized at the same time; partial cells count as complete."""
    row = _row_values(num_classes, width)
    return row * min(height, max(1, BAND_VALUES // row))


def _row_values(num_classes: int, width: int) -> int:
    """Return the values in a row of pixels; in an image narrower than a cell, those before the resize."""
    return num_classes * coarse_size(1, width)[1] * STRIDE


def resize(head: Any, logits: Float32Array, size: tuple[int, ...]) -> Iterator[tuple[slice, Array]]:
    """Yield the output of `head`, an infer request, for logits (1, C, h, w) resized to `size`, in bands of rows.

    Each band is the slice of its rows and their output, which is valid until the next band.
    """
    height, width = size
    above, below, shares = places(height, logits.shape[2])
    step = max(1, BAND_VALUES // _row_values(logits.shape[1], width))
    for start in range(0, height, step):
        rows = slice(start, min(start + step, height))
        extent = np.array([rows.stop - rows.start, width])
        inputs = [logits, above[rows], below[rows], shares[rows, None], extent]
        yield rows, head.infer(inputs, share_inputs=True, share_outputs=True)[0][0]


def mask_head(openvino: ModuleType, num_classes: int) -> Any:
    """Build a model that outputs the most likely class, uint8 (1, rows, W)."""
    opset = openvino.opset13
    resized, parameters = _resized(openvino, num_classes)
    one = opset.constant(np.int32(1))
    best = opset.topk(resized, one, axis=1, mode="max", sort="none", index_element_type="i32").output(1)
    return openvino.Model([opset.convert(opset.squeeze(best, one), "u8")], parameters)


def probability_head(openvino: ModuleType, num_classes: int) -> Any:
    """Build a model that outputs the probability of every class, float32 (1, num_classes, rows, W)."""
    resized, parameters = _resized(openvino, num_classes)
    return openvino.Model([openvino.opset13.softmax(resized, 1)], parameters)


def _resized(openvino: ModuleType, num_classes: int) -> tuple[Any, list[Any]]:
    """Resize a band of rows bilinearly: vertically with the rows above and below, horizontally with interpolate."""
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
