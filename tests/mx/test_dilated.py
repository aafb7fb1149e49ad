"""The replacement of dilated convolutions, against a convolution in float64 NumPy."""

from __future__ import annotations

import numpy as np
import openvino
import pytest
from openvino import opset13

from container.arrays import Array
from container.engines.dilated import replace_dilated_convolutions


def build(channels: int, rate: int, weights: Array) -> openvino.Model:
    features = opset13.parameter([1, channels, -1, -1], np.float32)
    sides = [rate, rate]
    convolution = opset13.convolution(features, opset13.constant(weights), [1, 1], sides, sides, sides)
    return openvino.Model([opset13.relu(convolution)], [features])


def convolve(features: Array, weights: Array, rate: int) -> Array:
    """Return the sum over the nine taps, in float64."""
    _, _, height, width = features.shape
    padded = np.pad(features[0].astype(np.float64), ((0, 0), (rate, rate), (rate, rate)))
    total = np.zeros((len(weights), height, width))
    for row in range(3):
        for column in range(3):
            shifted = padded[:, row * rate : row * rate + height, column * rate : column * rate + width]
            total += np.einsum("oc,chw->ohw", weights[:, :, row, column].astype(np.float64), shifted)
    return np.maximum(total, 0)


@pytest.mark.parametrize("rate", [6, 12, 36])
@pytest.mark.parametrize("size", [(1, 1), (5, 9), (7, 40), (41, 13), (37, 38)])
def test_the_sum_of_taps_equals_the_convolution(rate: int, size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((4, 1024, 3, 3)).astype(np.float32)
    features = rng.standard_normal((1, 1024, *size)).astype(np.float32)
    model = build(1024, rate, weights)
    assert replace_dilated_convolutions(openvino, model) == 1
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    result = openvino.Core().compile_model(model, "CPU", settings)([features])[0][0]
    assert np.allclose(result, convolve(features, weights, rate), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(("channels", "rate", "replaced"), [(1024, 6, 1), (512, 6, 0), (1024, 4, 0)])
def test_small_convolutions_stay(channels: int, rate: int, replaced: int) -> None:
    model = build(channels, rate, np.ones((1, channels, 3, 3), np.float32))
    assert replace_dilated_convolutions(openvino, model) == replaced
