"""Training steps: the same on one device and on two, whatever the batch's size."""

from __future__ import annotations

from pathlib import Path

import mxnet as mx
import numpy as np
import pytest

from container.data.batches import Batch
from container.hyperparameters import Hyperparameters, load
from container.mx.network import SegmentationNetwork, initialize_weights
from container.mx.trainer import Trainer

ONE, TWO = [mx.cpu(0)], [mx.cpu(0), mx.cpu(1)]


def hyperparameters(**changes: object) -> Hyperparameters:
    return load({"num_classes": 3, "num_training_samples": 4, "learning_rate": 0.01, **changes})


def batch(size: int, seed: int = 0) -> Batch:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, (size, 32, 32)).astype(np.uint8)
    labels[0, :20] = 255  # devices get unequal numbers of labelled pixels
    return Batch(rng.integers(0, 256, (size, 32, 32, 3), np.uint8), labels)


def small_network(devices: list[mx.Context]) -> SegmentationNetwork:
    """Make a network from one seed, with batch statistics and dropout fixed."""
    mx.random.seed(3)
    network = SegmentationNetwork("fcn", "resnet-50", 3, norm_kwargs={"use_global_stats": True})
    initialize_weights(network)
    for name, parameter in network._collect_params_with_prefix().items():
        if name.endswith("bn3.gamma"):  # without batch statistics the residual branches would add up to millions
            parameter.set_data(mx.nd.full(parameter.shape, 0.1))
    network.collect_params().reset_ctx(devices)
    for block in (network.head, network.auxlayer):
        block.block[3]._rate = 0.0
    network.hybridize()
    return network


def trained(
    devices: list[mx.Context], batches: list[Batch], **changes: object
) -> tuple[list[float], dict[str, np.ndarray]]:
    """Train a small network; returns losses and weights."""
    network = small_network(devices)
    trainer = Trainer(network, hyperparameters(**changes), devices)
    losses = []
    for each in batches:
        parts = trainer.step(each, 0.01)
        assert len(parts) == len(devices)
        losses.append(float(sum(part.asscalar() for part in parts)))
    weights = {
        name: [parameter.data(device).asnumpy() for device in devices]
        for name, parameter in network._collect_params_with_prefix().items()
    }
    for name, copies in weights.items():
        assert all(np.array_equal(copies[0], copy) for copy in copies), f"{name} differs between devices"
    return losses, {name: copies[0] for name, copies in weights.items()}


@pytest.mark.parametrize("sizes", [(4, 4), (3, 1)], ids=["even", "uneven-and-smaller-than-the-devices"])
def test_two_devices_train_as_one(sizes: tuple[int, int]) -> None:
    batches = [batch(size, seed) for seed, size in enumerate(sizes)]
    losses, weights = trained(ONE, batches)
    losses_of_two, weights_of_two = trained(TWO, batches)
    assert losses_of_two == pytest.approx(losses, rel=1e-4)
    start = trained(ONE, [])[1]
    assert max(np.abs(weights[name] - start[name]).max() for name in weights) > 1e-3  # they did learn
    for name, weight in weights.items():
        np.testing.assert_allclose(weights_of_two[name], weight, rtol=1e-3, atol=2e-5, err_msg=name)


def test_the_decoder_learns_ten_times_faster() -> None:
    start, after = trained(ONE, [])[1], trained(ONE, [batch(2)], optimizer="adam", num_classes=3)[1]
    moved = {
        name: np.median(np.abs(after[name] - start[name])) for name in ("head.block.0.weight", "layer4.0.conv1.weight")
    }
    assert moved["head.block.0.weight"] == pytest.approx(0.1, rel=0.05)  # adam's first step is the learning rate
    assert moved["layer4.0.conv1.weight"] == pytest.approx(0.01, rel=0.05)


def test_evaluation_counts_every_image_on_every_device() -> None:
    for devices in (ONE, TWO):
        mx.random.seed(3)
        network = SegmentationNetwork("fcn", "resnet-50", 3)
        initialize_weights(network)
        network.collect_params().reset_ctx(devices)
        trainer = Trainer(network, hyperparameters(), devices)
        batches = [batch(3), batch(1, seed=1)]
        confusion, count = trainer.evaluate(batches, 3)
        assert count == 4
        assert confusion.counts.sum() == sum(int((each.labels != 255).sum()) for each in batches)


def test_without_the_auxiliary_loss_its_head_stays_as_it_was() -> None:
    start, after = trained(ONE, [])[1], trained(ONE, [batch(2)], _aux_loss=False)[1]
    assert np.array_equal(after["auxlayer.block.0.weight"], start["auxlayer.block.0.weight"])
    assert not np.array_equal(after["head.block.0.weight"], start["head.block.0.weight"])


@pytest.mark.parametrize("optimizer", ["sgd", "nag", "adam", "rmsprop", "adagrad", "adadelta"])
def test_a_resumed_optimizer_steps_as_if_it_had_never_stopped(tmp_path: Path, optimizer: str) -> None:
    batches = [batch(2, seed) for seed in range(3)]
    through = make_trainer(optimizer)
    for each in batches[:2]:
        through.step(each, 0.001)
    through.save_weights(tmp_path / "weights")
    through.save_optimizer(tmp_path / "optimizer")
    through.step(batches[2], 0.001)
    resumed = make_trainer(optimizer)
    resumed.load_weights(tmp_path / "weights")
    resumed.load_optimizer(tmp_path / "optimizer")
    resumed.step(batches[2], 0.001)
    for name in ("head.block.0.weight", "layer4.0.conv1.weight", "conv1.0.weight"):
        np.testing.assert_allclose(weight_of(resumed, name), weight_of(through, name), rtol=1e-4, atol=1e-6)


def make_trainer(optimizer: str) -> Trainer:
    network = small_network(ONE)
    return Trainer(network, hyperparameters(optimizer=optimizer), ONE)


def weight_of(trainer: Trainer, name: str) -> np.ndarray:
    return trainer.network._collect_params_with_prefix()[name].data().asnumpy()
