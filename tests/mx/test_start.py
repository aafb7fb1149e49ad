"""Incremental training: the weights in the channel `model` are taken, or refused by the name a person knows."""

from __future__ import annotations

import hashlib
import json
import logging
import tarfile
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np
import pytest

from container.artifact.archives import WEIGHTS_LIMIT
from container.environment import Channel, Environment
from container.errors import ClientError
from container.hyperparameters import Hyperparameters, load
from container.mx.networks.segmentation import SegmentationNetwork, TrainingLoss, initialize_weights
from container.mx.optimization.optimizer import explain_optimizer
from container.mx.weights.initial_network import create_initial_network, norm_settings


def job(**changes: Any) -> Hyperparameters:
    return load({"num_classes": 2, "num_training_samples": 4, "use_pretrained_model": False, **changes})


def environment(channel: Path) -> Environment:
    return Environment(channel.parent, {}, {"model": Channel("model", channel)}, "algo-1", ("algo-1",))


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights of a network with two classes."""
    path = tmp_path_factory.mktemp("earlier") / "model_best.params"
    network = SegmentationNetwork("fcn", "resnet-50", 2)
    initialize_weights(network)
    network.save_parameters(str(path))
    return path


def pack(channel: Path, weights: Path, settings: dict[str, Any]) -> Path:
    channel.mkdir()
    (channel.parent / "hyperparams.json").write_text(json.dumps(settings))
    with tarfile.open(channel / "model.tar.gz", "w:gz", compresslevel=0) as archive:
        archive.add(channel.parent / "hyperparams.json", "hyperparams.json")
        archive.add(weights, "model_best.params")
    return channel / "model.tar.gz"


def test_training_starts_from_the_archives_weights(
    tmp_path: Path, earlier: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = pack(tmp_path / "model", earlier, {"num_classes": '"2"'})
    with caplog.at_level(logging.INFO):
        network = create_initial_network(environment(tmp_path / "model"), job(), [mx.cpu()])
    sha256 = hashlib.sha256(earlier.read_bytes()).hexdigest()
    assert caplog.messages == [
        f"Loaded the initial weights from channel model: model_best.params of {path} (SHA-256 {sha256})"
    ]
    saved = mx.nd.load(str(earlier))
    for name, parameter in network._collect_params_with_prefix().items():
        np.testing.assert_array_equal(parameter.data().asnumpy(), saved[name].asnumpy())


def test_another_range_of_16_bit_images_is_a_warning(
    tmp_path: Path, earlier: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = pack(tmp_path / "model", earlier, {"num_classes": "2", "_image_range": "0,4095"})
    for image_range, told in (("0,1023", "0,1023"), (None, "not set"), ("0, 4095", None)):
        caplog.clear()
        changes = {"_image_range": image_range} if image_range else {}
        create_initial_network(environment(tmp_path / "model"), job(**changes), [mx.cpu()])
        assert [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING] == (
            [f"{path} was trained with _image_range=0,4095, which is {told} in this job. Set the same range."]
            if told
            else []
        )


def refused(channel: Path, **changes: Any) -> str:
    with pytest.raises(ClientError) as caught:
        create_initial_network(environment(channel), job(**changes), [mx.cpu()])
    assert "Traceback" not in str(caught.value)
    return str(caught.value)


def test_another_network_is_refused_by_its_settings(tmp_path: Path, earlier: Path) -> None:
    pack(tmp_path / "model", earlier, {"num_classes": "3"})
    assert refused(tmp_path / "model").startswith(
        "the model in channel model has num_classes=3, but this job has num_classes=2"
    )


def test_weights_that_are_none_are_named_by_their_archive(tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    weights.write_bytes(b"weights")
    path = pack(tmp_path / "model", weights, {"num_classes": 2})
    assert refused(tmp_path / "model").startswith(f"model_best.params of {path} is not a weight file. Use the model")


def test_weights_of_another_network_are_named_by_their_archive(tmp_path: Path, earlier: Path) -> None:
    path = pack(tmp_path / "model", earlier, {"num_classes": 3})
    reason = refused(tmp_path / "model", num_classes=3)
    assert reason.startswith(
        f"model_best.params of {path} does not match the model of this job (fcn, resnet-50, 3 classes): "
    )
    assert "auxlayer" in reason or "head" in reason


def test_the_largest_networks_weights_are_let_in() -> None:
    network = SegmentationNetwork("psp", "resnet-101", 254)
    network.collect_params().initialize()
    TrainingLoss(network, 1.0).infer_shape(mx.nd.zeros((1, 8, 8, 3), dtype="uint8"), mx.nd.zeros((1, 8, 8)))
    size = 4 * sum(int(np.prod(parameter.shape)) for parameter in network.collect_params().values())
    assert 2 * size < WEIGHTS_LIMIT < 2.2 * size  # float64 too


@pytest.mark.parametrize(
    ("devices", "hosts", "acts", "told"),
    [
        ([mx.gpu(0)], 1, False, "syncbn has no effect: it synchronizes the GPUs of one host, and this host has one"),
        ([mx.gpu(0)], 2, False, "syncbn has no effect: it synchronizes the GPUs of one host, and each of the hosts"),
        ([mx.cpu()], 1, False, "syncbn has no effect, because this job trains on CPUs"),
        ([mx.gpu(0), mx.gpu(1)], 2, True, "syncbn synchronizes the 2 GPUs of each host, but not the 2 hosts"),
        ([mx.gpu(0), mx.gpu(1)], 1, True, ""),
    ],
)
def test_syncbn_without_gpus_to_synchronize_is_reported(
    devices: list[mx.Context], hosts: int, acts: bool, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    settings = norm_settings(job(syncbn=True), devices, hosts)
    assert settings.get("norm_kwargs") == ({"num_devices": 2} if acts else None)
    assert [message[: len(told)] for message in caplog.messages] == ([told] if told else [])
    caplog.clear()
    assert norm_settings(job(), devices, hosts) == {} and caplog.messages == []


def test_a_kvstore_for_one_device_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    told = "_kvstore=nccl has no effect: there is one device, so no gradients are summed"
    with caplog.at_level(logging.INFO):
        explain_optimizer(job(_kvstore="nccl"), 2)
        assert told not in caplog.messages
        explain_optimizer(job(_kvstore="nccl"), 1)
    assert caplog.messages.count(told) == 1
