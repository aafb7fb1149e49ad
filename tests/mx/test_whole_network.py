"""Whole networks to start from: GluonCV's and imgclsmob's files, of the same and of another number of classes."""

from __future__ import annotations

from pathlib import Path

import mxnet as mx
import numpy as np
import pytest
from gluoncv.model_zoo.deeplabv3 import DeepLabV3
from gluoncv.model_zoo.fcn import FCN
from gluoncv.model_zoo.pspnet import PSPNet

from container.environment import Channel, Environment
from container.errors import ClientError
from container.hyperparameters import Hyperparameters, load
from container.mx.networks.segmentation import SegmentationNetwork
from container.mx.weights.complete_models import find_bare, read_network
from container.mx.weights.initial_network import create_initial_network
from tests.mx.published import Weights, random_weights, write_gluoncv, write_imgclsmob, write_timm

GLUONCV = {"fcn": FCN, "psp": PSPNet, "deeplab": DeepLabV3}
ENTRIES = {"fcn": 289, "psp": 309, "deeplab": 319}  # with resnet-50 and the auxiliary head
VOC = 21
CLASSIFIERS = {f"{head}.block.4.{kind}" for head in ("head", "auxlayer") for kind in ("weight", "bias")}


@pytest.fixture(scope="module", params=list(GLUONCV))
def published(request: pytest.FixtureRequest) -> tuple[str, Weights]:
    """Random weights for GluonCV's own network of 21 classes."""
    network = GLUONCV[request.param](nclass=VOC, backbone="resnet50", pretrained_base=False, crop_size=64)
    network.infer_shape(mx.nd.zeros((1, 3, 64, 64)))
    rng = np.random.default_rng(5)
    return request.param, {
        name: rng.random(parameter.shape, np.float32)
        for name, parameter in network._collect_params_with_prefix().items()
    }


def start(root: Path, **hyperparameters: object) -> SegmentationNetwork:
    channel = Channel("model", root / "model", "File")
    environment = Environment(root, {}, {"model": channel}, "algo-1", ("algo-1",))
    return create_initial_network(environment, job(**hyperparameters), [mx.cpu()])


def job(**changes: object) -> Hyperparameters:
    return load({"num_classes": VOC, "num_training_samples": 1, "_seed": 1, **changes})


def arrays(network: SegmentationNetwork) -> Weights:
    return {name: value.data().asnumpy() for name, value in network._collect_params_with_prefix().items()}


def assert_equal(started: Weights, weights: Weights, *, fresh: set[str] = frozenset()) -> None:  # type: ignore[assignment]
    assert started.keys() == weights.keys()
    for name, array in started.items():
        if name in fresh:
            assert array.shape[0] == 4 and not np.array_equal(array, weights[name][:4]), name
        else:
            assert np.array_equal(array, weights[name]), name


@pytest.mark.parametrize("names", ["gluoncv", "imgclsmob"])
def test_a_bare_file_starts_the_job(published: tuple[str, Weights], names: str, tmp_path: Path) -> None:
    algorithm, weights = published
    (tmp_path / "model").mkdir()
    path = tmp_path / "model/network.bin"
    if names == "gluoncv":
        write_gluoncv(path, weights)
    else:
        write_imgclsmob(path, weights, trunk="backbone")
    assert len(weights) == ENTRIES[algorithm]
    settings = {"num_classes": VOC, "algorithm": algorithm, "backbone": "resnet-50"}
    assert read_network(path, "it")[1] == settings
    assert_equal(arrays(start(tmp_path, algorithm=algorithm)), weights)


def test_another_number_of_classes_needs_the_switch(published: tuple[str, Weights], tmp_path: Path) -> None:
    algorithm, weights = published
    (tmp_path / "model").mkdir()
    write_imgclsmob(tmp_path / "model/network.params", weights, trunk="backbone")
    with pytest.raises(ClientError) as caught:
        start(tmp_path, algorithm=algorithm, num_classes=4)
    assert str(caught.value) == (
        "the model in channel model has num_classes=21, but this job has num_classes=4. "
        "To reinitialize the classification layers and keep the other weights, set _reset_head=True."
    )
    started = arrays(start(tmp_path, algorithm=algorithm, num_classes=4, _reset_head=True))
    assert_equal(started, weights, fresh=CLASSIFIERS)


@pytest.fixture(scope="module")
def weights() -> Weights:
    """A small fcn of four classes, by its published layers."""
    encoder = {name: array for name, array in random_weights("resnet-18").items() if not name.startswith("fc.")}
    rng = np.random.default_rng(2)
    for head, channels in (("head", 512), ("auxlayer", 256)):
        inner = channels // 4
        encoder[f"{head}.block.0.weight"] = rng.random((inner, channels, 3, 3), np.float32)
        for kind in ("gamma", "beta", "running_mean", "running_var"):
            encoder[f"{head}.block.1.{kind}"] = rng.random(inner, np.float32)
        encoder[f"{head}.block.4.weight"] = rng.random((4, inner, 1, 1), np.float32)
        encoder[f"{head}.block.4.bias"] = rng.random(4, np.float32)
    return encoder


@pytest.fixture
def channel(tmp_path: Path) -> Path:
    (tmp_path / "model").mkdir()
    return tmp_path / "model"


def test_the_same_classes_are_reset_too_when_asked(weights: Weights, channel: Path) -> None:
    write_timm(channel / "network.safetensors", weights)
    started = arrays(start(channel.parent, num_classes=4, backbone="resnet-18", _reset_head=True))
    assert_equal(started, weights, fresh=CLASSIFIERS)


def test_without_an_auxiliary_head_it_starts_at_random(
    weights: Weights, channel: Path, caplog: pytest.LogCaptureFixture
) -> None:
    main = {name: array for name, array in weights.items() if not name.startswith("auxlayer.")}
    write_gluoncv(channel / "network.params", main)
    started = arrays(start(channel.parent, num_classes=4, backbone="resnet-18"))
    assert_equal({name: started[name] for name in main}, main)
    assert np.all(started["auxlayer.block.1.running_var"] == 1)
    assert "network.params has no auxiliary head. The head starts from random weights" in caplog.text


def test_another_network_is_named(weights: Weights, channel: Path) -> None:
    path = channel / "network.params"
    write_gluoncv(path, weights)
    with pytest.raises(
        ClientError, match=r"model has backbone=resnet-18, but this job has backbone=resnet-50\. Set backbone=resnet-18"
    ):
        start(channel.parent, num_classes=4)
    with pytest.raises(
        ClientError, match=r"model has algorithm=fcn, but this job has algorithm=psp\. Set algorithm=fcn"
    ):
        start(channel.parent, num_classes=4, backbone="resnet-18", algorithm="psp")
    write_gluoncv(path, random_weights("resnet-18"))
    with pytest.raises(ClientError, match=r"it has no decoder\. Use the pretrained channel"):
        start(channel.parent)
    deeper = {f"layer3.{number}.conv1.weight": np.ones(1, np.float32) for number in range(36)}
    write_gluoncv(path, weights | deeper)
    with pytest.raises(
        ClientError, match=r"its backbone has 36 blocks in stage 3\. Use one of resnet-18, resnet-34, res"
    ):
        start(channel.parent)
    write_gluoncv(path, {name: array for name, array in weights.items() if name != "bn1.gamma"})
    with pytest.raises(
        ClientError, match=r"does not match the model of this job \(fcn, resnet-18, 4 classes\): bn1.gamma is missing"
    ):
        start(channel.parent, num_classes=4, backbone="resnet-18")


def test_archives_and_model_directories_are_not_bare(channel: Path) -> None:
    begins = bytes([0x12, 1]) + bytes(6)
    (channel / "readme.txt").write_text("a stray")
    assert find_bare(channel) is None
    (channel / "network.params").write_bytes(begins)
    assert find_bare(channel) == channel / "network.params"
    for name, content in (("model.tar.gz", b"\x1f\x8b\x08"), ("hyperparams.json", b"{}")):
        (channel / name).write_bytes(content)
        assert find_bare(channel) is None
        (channel / name).unlink()
    (channel / "other.params").write_bytes(begins)
    with pytest.raises(
        ClientError, match=r"channel model contains more than one weight file: network\.params, other\.params"
    ):
        find_bare(channel)
