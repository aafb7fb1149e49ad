from __future__ import annotations

import json
from pathlib import Path

import mxnet as mx
import numpy as np
import pytest

from container.engines.mxnet import MXNetEngine
from container.errors import ClientError
from container.mx.networks.segmentation import SegmentationNetwork

CLASSES = 4
IMAGE = np.random.default_rng(2).integers(0, 256, (24, 40, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def network() -> SegmentationNetwork:
    mx.random.seed(5)
    network = SegmentationNetwork("fcn", "resnet-50", CLASSES)
    network.initialize(mx.init.Xavier())
    network.both_heads(mx.nd, mx.nd.array(IMAGE[None], dtype="uint8"))  # settles the shapes
    return network


@pytest.fixture
def model_dir(network: SegmentationNetwork, tmp_path: Path) -> Path:
    network.save_parameters(str(tmp_path / "model_best.params"))
    write_settings(tmp_path)
    return tmp_path


def write_settings(folder: Path, **changes: str) -> None:
    settings = {"num_classes": str(CLASSES), "algorithm": "fcn", "backbone": "resnet-50", **changes}
    (folder / "hyperparams.json").write_text(json.dumps(settings))


def drop(folder: Path, part: str) -> None:
    path = str(folder / "model_best.params")
    mx.nd.save(path, {name: value for name, value in mx.nd.load(path).items() if not name.startswith(part)})


def test_output_equals_that_of_the_gluon_model(network: SegmentationNetwork, model_dir: Path) -> None:
    engine = MXNetEngine(model_dir)
    engine.warm()
    logits = network(mx.nd.array(IMAGE[None], dtype="uint8")).asnumpy()[0].astype(np.float64)
    powers = np.exp(logits - logits.max(0))
    probabilities = engine.probabilities(IMAGE)
    assert (engine.num_classes, probabilities.dtype, probabilities.shape) == (CLASSES, np.float32, (CLASSES, 24, 40))
    np.testing.assert_allclose(probabilities, powers / powers.sum(0), atol=1e-5)
    mask = engine.mask(IMAGE)
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, logits.argmax(0))
    assert len(np.unique(mask)) > 1


def test_auxiliary_head_is_not_needed(model_dir: Path) -> None:
    expected = MXNetEngine(model_dir).probabilities(IMAGE)
    drop(model_dir, "auxlayer")
    np.testing.assert_array_equal(MXNetEngine(model_dir).probabilities(IMAGE), expected)


def test_missing_layer_is_named(model_dir: Path) -> None:
    drop(model_dir, "layer4")
    with pytest.raises(
        ClientError, match=r"model_best\.params does not match .*the file lacks layer4\.0\.conv1\.weight"
    ):
        MXNetEngine(model_dir)


def test_weights_of_another_architecture_are_rejected(model_dir: Path) -> None:
    write_settings(model_dir, num_classes="7")
    with pytest.raises(ClientError, match=r"does not match .*7 classes"):
        MXNetEngine(model_dir)
    write_settings(model_dir, algorithm="deeplab")
    with pytest.raises(ClientError, match=r"does not match .*deeplab"):
        MXNetEngine(model_dir)


def test_corrupt_file_is_rejected(model_dir: Path) -> None:
    (model_dir / "model_best.params").write_bytes(b"rubbish" * 100)
    with pytest.raises(ClientError, match=r"model_best\.params does not match") as raised:
        MXNetEngine(model_dir)
    assert "Traceback" not in str(raised.value)
