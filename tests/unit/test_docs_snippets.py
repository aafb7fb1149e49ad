"""The Python and JSON snippets of the pages run as they are."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image
from werkzeug.serving import make_server

from container.data.labels.label_maps import LabelMap
from container.hyperparameters import load
from container.metrics import METRIC_DEFINITIONS, class_metric_definitions
from container.serving.app import create_app
from tests.pages import Block, blocks
from tests.unit.serving.test_serving import SETTINGS, FakeEngine, loaded

SNIPPETS = blocks("python")
JSON = blocks("json")

# What a snippet needs. tests/sagemaker runs those for the SageMaker Python SDK.
MARKS = {("run",), ("run", "server"), ("run", "graph"), ("sdk3",)}


def marked(*marks: str) -> list[Block]:
    found = [block for block in SNIPPETS if block.marks == marks]
    assert found, f"no snippet is marked {marks}"
    return found


@pytest.fixture
def street(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write street.jpg, whose left half is black and right half is red, to the working directory."""
    monkeypatch.chdir(tmp_path)
    pixels = np.zeros((16, 32, 3), np.uint8)
    pixels[:, 16:, 0] = 255
    Image.fromarray(pixels).save("street.jpg", quality=100, subsampling=0)


@pytest.fixture
def address() -> Iterator[str]:
    """Run a server whose model predicts class 1, with 75%, for red pixels."""
    server = make_server("127.0.0.1", 0, create_app(loaded(FakeEngine()), SETTINGS))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"127.0.0.1:{server.port}"
    server.shutdown()
    thread.join()


def run(block: Block, text: str = "") -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(compile(text or block.text, str(block), "exec"), names)
    return names


@pytest.mark.parametrize("block", SNIPPETS, ids=str)
def test_snippet_compiles_and_has_a_known_mark(block: Block) -> None:
    compile(block.text, str(block), "exec")
    assert block.marks in MARKS


@pytest.mark.usefixtures("street")
def test_client_snippets_return_mask_probabilities_and_json(address: str) -> None:
    names: dict[str, Any] = {}
    for block in marked("run", "server"):
        names |= run(block, block.text.replace("localhost:8080", address))
    assert names["mask"].shape == (16, 32)
    assert (names["mask"][:, 0] == 0).all() and (names["mask"][:, -1] == 1).all()
    likeliest = names["likeliest"]
    assert likeliest.shape == (1, 2, 16, 32)
    assert likeliest[0, :, 0, 31].tolist() == [(1, 191), (0, 64)]  # 0.75 and 0.25 of 255
    assert names["shares"] == {0: 0.5, 1: 0.5}
    assert names["first"] == names["second"]
    assert names["first"]["shape"] == [16, 32]


@pytest.mark.usefixtures("street")
def test_onnx_snippet_returns_a_class_per_pixel() -> None:
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", "H", "W", 3])
    mask = helper.make_tensor_value_info("mask", TensorProto.UINT8, ["N", "H", "W"])
    number = helper.make_tensor("number", TensorProto.INT64, [], [0])
    half = helper.make_tensor("half", TensorProto.UINT8, [], [127])
    nodes = [
        helper.make_node("Gather", ["image", "number"], ["red"], axis=3),
        helper.make_node("Greater", ["red", "half"], ["is_red"]),
        helper.make_node("Cast", ["is_red"], ["mask"], to=TensorProto.UINT8),
    ]
    graph = helper.make_graph(nodes, "red", [image], [mask], [number, half])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), "model.onnx")
    (block,) = marked("run", "graph")
    found = run(block)["mask"]
    assert found.shape == (16, 32)
    assert (found[:, 0] == 0).all() and (found[:, -1] == 1).all()


def test_the_metrics_that_are_published_are_the_programs() -> None:
    (block,) = marked("run")
    definitions = {entry["Name"]: entry["Regex"] for entry in run(block)["metric_definitions"]}
    assert definitions == METRIC_DEFINITIONS
    ((name, expression),) = class_metric_definitions([3]).items()
    assert f'`{{"Name": "{name}", "Regex": r"{expression}"}}`' in block.page.read_text()


@pytest.mark.parametrize("block", JSON, ids=str)
def test_all_json_is_a_label_map_or_a_job(block: Block) -> None:
    content = json.loads(block.text)
    if "num_classes" in content:
        assert load(content).num_classes == content["num_classes"]
        return
    label_map = LabelMap(content)
    assert (label_map.scale, label_map.colors is not None) == (content.get("scale"), "colors" in content)
