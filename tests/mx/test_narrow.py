"""Images of few pixels along a side, inferred after different other images, against ONNX Runtime in every precision.

NARROW_SWEEP=1 tests all model architectures, and all sizes from 1 to 40 pixels along both axes.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from container.engines.graph import import_openvino
from container.engines.openvino import OpenVinoEngine
from container.engines.quantize import quantize_onnx
from container.mx.export import export_onnx
from tests.mx.test_export import build_network, random_image
from tests.mx.test_openvino import smooth_images

pytestmark = pytest.mark.filterwarnings("ignore:Parameter .* is already initialized")

COMPLETE = bool(os.environ.get("NARROW_SWEEP"))
SIZES = [(37, 2), (100, 8), (40, 9), (1, 33)]
if COMPLETE:
    SIZES = [(height, width) for height in range(1, 41) for width in range(1, 41)]
NATIVE = "BF16" in import_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
PRECISIONS = ["float32", "bfloat16", "int8"] if NATIVE else ["float32", "int8"]
TOLERANCES = {"float32": 1e-4, "bfloat16": 0.02, "int8": 0.05}  # of probabilities; rounding to int8 amplifies
BEFORE = [np.zeros((64, 64, 3), np.uint8), np.full((64, 64, 3), 255, np.uint8), random_image(48, 8)[0]]
NETWORKS = [("fcn", "resnet-18"), ("fastscnn", "")]
if COMPLETE:
    NETWORKS += [("psp", "resnet-18"), ("deeplab", "resnet-18")]


@pytest.fixture(scope="module", params=NETWORKS, ids="/".join)
def graphs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("graphs")
    export_onnx(build_network(*request.param), folder / "model.onnx")
    quantize_onnx(folder / "model.onnx", folder / "model.int8.onnx", iter(smooth_images(4)))
    return folder / "model.onnx", folder / "model.int8.onnx"


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits.astype(np.float64) - logits.max(0))
    answer: np.ndarray = powers / powers.sum(0)
    return answer


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_result_does_not_depend_on_the_image_before(graphs: tuple[Path, Path], precision: str) -> None:
    graph = graphs[precision == "int8"]
    session = onnxruntime.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
    engine = OpenVinoEngine(graph, precision, threads=2)
    for size in SIZES:
        image = random_image(*size)[0]
        expected = softmax(session.run(["logits"], {"image": image[None]})[0][0])
        answers = []
        for other in BEFORE:
            engine.probabilities(other)
            answers.append(engine.probabilities(image))
        for answer in answers:
            np.testing.assert_array_equal(answer, answers[0], err_msg=f"{size}")
        np.testing.assert_allclose(answers[0], expected, rtol=0, atol=TOLERANCES[precision], err_msg=f"{size}")
