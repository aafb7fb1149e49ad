"""Images of few pixels along a side, inferred after different other images, against ONNX Runtime in every precision.

NARROW_SWEEP=1 tests all model architectures, and all sizes from 1 to 40 pixels along both axes.
"""

from __future__ import annotations

import importlib
import itertools
import os
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from container.engines.onnx_model import import_openvino
from container.engines.openvino import OpenVinoEngine
from container.engines.quantize import quantize_onnx
from container.mx import export
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


@pytest.mark.parametrize("precision", PRECISIONS[1:])
def test_no_image_makes_the_frontend_read_the_graph(
    graphs: tuple[Path, Path], precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = OpenVinoEngine(graphs[precision == "int8"], precision, threads=2)

    def refuse() -> None:
        raise AssertionError("it holds the interpreter lock, and /ping waits")

    monkeypatch.setattr(importlib.import_module("openvino.frontend"), "FrontEndManager", refuse)
    assert engine.mask(random_image(37, 2)[0]).shape == (37, 2)


@pytest.mark.skipif(not NATIVE, reason="the processor does not compute in bfloat16")
def test_pooling_into_bins_is_right_in_bfloat16(tmp_path: Path) -> None:
    graph, channels, bins = export._Graph({}), 32, (1, 2, 3, 6)
    outputs = [export._pool_adaptively(graph, f"p{count}", ["x"], {"output_size": count})[0] for count in bins]
    image = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, channels, "h", "w"])
    pooled = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in outputs]
    constants = [onnx.numpy_helper.from_array(value, name) for name, value in graph.constants.items()]
    made = onnx.helper.make_graph(list(graph.nodes.values()), "pooling", [image], pooled, constants)
    model = onnx.helper.make_model(made, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(tmp_path / "pooling.onnx"))
    core = import_openvino().Core()
    settings = {"INFERENCE_PRECISION_HINT": "bf16", "CPU_RUNTIME_CACHE_CAPACITY": 0}
    compiled = core.compile_model(core.read_model(tmp_path / "pooling.onnx"), "CPU", settings)
    rng = np.random.default_rng(0)
    sides = range(1, 34) if COMPLETE else (1, 2, 7, 16, 31, 32, 33)
    for height, width in itertools.product(sides, sides):
        values = rng.random((1, channels, height, width), np.float32)
        compiled(np.full((1, channels, 40, 40), 1e6, np.float32))
        for count, answer in zip(bins, compiled(values).values(), strict=True):
            edges = [
                [(i * side // count, -(-(i + 1) * side // count)) for i in range(count)] for side in (height, width)
            ]
            means = [[values[0, :, a:b, c:d].mean((1, 2), np.float64) for c, d in edges[1]] for a, b in edges[0]]
            np.testing.assert_allclose(answer[0], np.array(means).transpose(2, 0, 1), atol=0.01, rtol=0)


def _edges(side: int, count: int) -> list[tuple[int, int]]:
    return [(number * side // count, -(-(number + 1) * side // count)) for number in range(count)]
