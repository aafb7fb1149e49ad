"""Training steps: the same on one device and on two, whatever the batch's size."""

from __future__ import annotations

import logging
from pathlib import Path

import mxnet as mx
import numpy as np
import pytest
from gluoncv.loss import MixSoftmaxCrossEntropyLoss
from mxnet import autograd

from container.data.batches import Batch
from container.errors import AlgorithmError
from container.hyperparameters import load
from container.mx.networks.segmentation import SegmentationNetwork, initialize_weights
from container.mx.optimization.optimizer import create_optimizer, explain_optimizer
from container.mx.replicas import TrainingDivergedError
from container.mx.trainer import Trainer
from tests.mx import tiny

ONE, TWO = tiny.cpus(1), tiny.cpus(2)
Weights = dict[str, np.ndarray]


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


def trained(devices: list[mx.Context], batches: list[Batch], **changes: object) -> tuple[list[float], Weights]:
    """Train a tiny network, its batch statistics and dropout fixed; returns losses and weights."""
    trainer = tiny.tiny_trainer(devices, tiny.tiny_job(**changes), use_global_stats=True)
    trainer.network.head[0]._rate = 0.0
    losses = tiny.train(trainer, batches)
    held = tiny.copies(trainer)
    for name, copies in held.items():
        assert all(np.array_equal(copies[0], copy) for copy in copies), f"{name} differs between devices"
    return losses, {name: copies[0] for name, copies in held.items()}


@pytest.mark.parametrize("sizes", [(4, 4), (3, 1)], ids=["even", "uneven-and-smaller-than-the-devices"])
def test_two_devices_train_as_one(sizes: tuple[int, int]) -> None:
    batches = [tiny.batch(size, seed) for seed, size in enumerate(sizes)]
    losses, weights = trained(ONE, batches, _gradient_scale="mean")
    losses_of_two, weights_of_two = trained(TWO, batches, _gradient_scale="mean")
    assert losses_of_two == pytest.approx(losses, rel=1e-4)
    start = trained(ONE, [])[1]
    assert max(np.abs(weights[name] - start[name]).max() for name in weights) > 1e-3  # they did learn
    for name, weight in weights.items():
        np.testing.assert_allclose(weights_of_two[name], weight, rtol=1e-3, atol=2e-5, err_msg=name)


def test_the_decoder_learns_ten_times_faster() -> None:
    job = load({"num_classes": 3, "num_training_samples": 4, "optimizer": "adam"})
    trainer = Trainer(small_network(ONE), job, ONE)
    before = tiny.copies(trainer)
    trainer.step(tiny.batch(2), 0.01)
    after = tiny.copies(trainer)
    moved = {
        name: np.median(np.abs(after[name][0] - before[name][0]))
        for name in ("head.block.0.weight", "layer4.0.conv1.weight")
    }
    assert moved["head.block.0.weight"] == pytest.approx(0.1, rel=0.05)  # adam's first step is the learning rate
    assert moved["layer4.0.conv1.weight"] == pytest.approx(0.01, rel=0.05)


def test_evaluation_counts_every_image_on_every_device() -> None:
    batches = [tiny.batch(3), tiny.batch(1, seed=1)]
    for devices in (1, 2, 3):
        confusion, count = tiny.tiny_trainer(tiny.cpus(devices), tiny.tiny_job()).evaluate(batches, 3)
        assert count == 4
        assert confusion.counts.sum() == sum(int((each.labels != 255).sum()) for each in batches)


def test_without_the_auxiliary_loss_its_head_stays_as_it_was() -> None:
    start, after = trained(ONE, [])[1], trained(ONE, [tiny.batch(2)], _aux_loss=False)[1]
    assert np.array_equal(after["auxlayer.0.weight"], start["auxlayer.0.weight"])
    assert not np.array_equal(after["head.1.weight"], start["head.1.weight"])


@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize("optimizer", ["sgd", "nag"])
def test_sgd_and_nag_step_as_gluoncvs_loss_and_step_do(optimizer: str, devices: int) -> None:
    batches = [tiny.batch(4, seed) for seed in range(5)]
    ours = tiny.tiny_trainer(tiny.cpus(devices), tiny.tiny_job(optimizer=optimizer))
    tiny.train(ours, batches, rate=0.1)
    theirs = tiny.tiny_trainer(tiny.cpus(devices), tiny.tiny_job(optimizer=optimizer)).network
    start = theirs.head[1].weight.data().asnumpy()
    loss = MixSoftmaxCrossEntropyLoss(aux=True, aux_weight=0.5, ignore_label=255)
    settings = {"learning_rate": 0.1, "momentum": 0.9, "wd": 0.0001 if optimizer == "sgd" else 0.0}
    stepper = mx.gluon.Trainer(theirs.collect_params(), optimizer, settings, kvstore="device", update_on_kvstore=False)
    for number, each in enumerate(batches):
        ours.seed(1, 0, number)  # the same dropout
        images = mx.gluon.utils.split_and_load(mx.nd.array(each.images, dtype="uint8"), tiny.cpus(devices))
        labels = mx.gluon.utils.split_and_load(mx.nd.array(each.labels), tiny.cpus(devices))
        with autograd.record():
            losses = [loss(*theirs.both_heads(mx.nd, x), y) for x, y in zip(images, labels, strict=True)]
            autograd.backward(losses)
        stepper.step(4)
    expected = {name: parameter.data() for name, parameter in theirs._collect_params_with_prefix().items()}
    assert np.abs(expected["head.1.weight"].asnumpy() - start).max() > 1e-3
    for name, arrays in tiny.copies(ours).items():
        np.testing.assert_allclose(arrays[0], expected[name].asnumpy(), rtol=1e-4, atol=1e-6, err_msg=name)


def test_the_plain_mean_steps_by_batch_size_over_devices_more() -> None:
    moved = {}
    for scale in ("gluoncv", "mean"):
        trainer = tiny.tiny_trainer(tiny.cpus(2), tiny.tiny_job(_gradient_scale=scale, _aux_loss=False))
        before = tiny.copies(trainer)["stage4.weight"][0]
        tiny.train(trainer, [even_batch()], rate=0.001)
        moved[scale] = tiny.copies(trainer)["stage4.weight"][0] - before
    np.testing.assert_allclose(moved["mean"], moved["gluoncv"] * 4 / 2, rtol=1e-2, atol=1e-7)


def even_batch(size: int = 32, count: int = 4) -> Batch:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, size, size, 3), np.uint8)
    return Batch(images, rng.integers(0, 3, (count, size, size)).astype(np.uint8))


def test_devices_are_given_the_mean_of_their_statistics_and_the_file_holds_it(tmp_path: Path) -> None:
    trainer = tiny.tiny_trainer(tiny.cpus(3), tiny.tiny_job())
    tiny.train(trainer, [tiny.batch(5), tiny.batch(4, seed=1)])
    before = tiny.copies(trainer)["stem.1.running_mean"]
    assert not np.array_equal(before[0], before[1])
    mean = np.mean(before, axis=0)
    trainer.save_weights(tmp_path / "weights")
    np.testing.assert_allclose(mx.nd.load(str(tmp_path / "weights"))["stem.1.running_mean"].asnumpy(), mean, rtol=1e-6)
    trainer.synchronize_replicas()
    for each in tiny.copies(trainer)["stem.1.running_mean"]:
        np.testing.assert_allclose(each, mean, rtol=1e-6)


def test_devices_that_no_longer_train_one_network_are_noticed() -> None:
    trainer = tiny.tiny_trainer(tiny.cpus(2), tiny.tiny_job())
    tiny.train(trainer, [tiny.batch(4)])
    trainer.synchronize_replicas()
    trainer.network.stage4.weight.list_data()[1][0, 0, 0, 0] += 0.01
    message = r"stage4\.weight differs between cpu\(0\) and cpu\(1\) by a total of 0\.01"
    with pytest.raises(AlgorithmError, match=message):
        trainer.synchronize_replicas()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_longer_finite_are_noticed(value: float) -> None:
    trainer = tiny.tiny_trainer(tiny.cpus(1), tiny.tiny_job())
    trainer.network.stage4.bias.data()[0] = value
    with pytest.raises(TrainingDivergedError, match=r"the parameter stage4\.bias is not finite"):
        trainer.synchronize_replicas()


def test_with_static_allocation_the_file_holds_the_statistics_of_the_last_step(tmp_path: Path) -> None:
    whole = even_batch(size=128, count=16)  # large enough that the step is not done when the file is asked for
    saved = []
    for static in (False, True):
        trainer = tiny.tiny_trainer(tiny.cpus(1), tiny.tiny_job(_hybrid=static))
        for number in range(2):
            trainer.seed(1, 0, number)
            trainer.step(whole, 0.01)
            trainer.save_weights(tmp_path / "weights")
            saved.append(mx.nd.load(str(tmp_path / "weights"))["stem.1.running_var"].asnumpy())
    np.testing.assert_allclose(saved[:2], saved[2:], rtol=1e-5)


def test_rmsprop_is_plain_unless_it_is_to_be_centered() -> None:
    first = {}
    for centered in (False, True):
        trainer = tiny.tiny_trainer(tiny.cpus(1), tiny.tiny_job(optimizer="rmsprop", _rmsprop_centered=centered))
        before = tiny.copies(trainer)["stage4.weight"][0]
        tiny.train(trainer, [tiny.batch(4)], rate=0.001)
        first[centered] = np.median(np.abs(tiny.copies(trainer)["stage4.weight"][0] - before))
    # plain: rate × g / √(0.1 g²); centered: rate × g / √(0.1 g² − 0.01 g²), all of it new to the momentum
    assert first[False] == pytest.approx(0.001 / np.sqrt(0.1), rel=0.02)
    assert first[True] == pytest.approx(0.001 / np.sqrt(0.09), rel=0.02)


def test_centered_rmsprop_uses_gamma2_as_momentum_and_weight_decay() -> None:
    """The weights follow equations 38 to 45 of Graves (2013), with the decay in the gradient."""
    momentum, decay, rate = 0.5, 0.3, 0.01
    settings = {"optimizer": "rmsprop", "_rmsprop_centered": True, "gamma2": momentum, "weight_decay": decay}
    parameter = mx.gluon.Parameter("weight", shape=(2,))
    parameter.initialize(mx.init.One(), ctx=ONE)
    trainer = create_optimizer({"weight": parameter}, tiny.tiny_job(**settings, learning_rate=rate), ONE)
    weight, squares, means, step = np.ones(2), np.zeros(2), np.zeros(2), np.zeros(2)
    for slope in ([0.5, -2.0], [0.25, 1.0], [-1.0, 3.0]):
        with mx.autograd.record():
            loss = (parameter.data() * mx.nd.array(slope)).sum()
        loss.backward()
        trainer.step(1)
        gradient = np.array(slope) + decay * weight
        squares = 0.9 * squares + 0.1 * gradient**2
        means = 0.9 * means + 0.1 * gradient
        step = momentum * step - rate * gradient / np.sqrt(squares - means**2 + 1e-8)
        weight = weight + step
        np.testing.assert_allclose(parameter.data().asnumpy(), weight, rtol=1e-5)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"optimizer": "rmsprop", "gamma2": 0.5}, "gamma2=0.5 has no effect, it is the momentum of the centered form"),
        ({"optimizer": "rmsprop", "gamma2": 0.5, "_rmsprop_centered": True}, "centered form: gamma1=0.9, and gamma2"),
        ({"_accumulate": 3}, "_accumulate=3: each update uses the gradients of 12 images"),
        ({"learning_rate": 0.08}, "learning_rate 0.08 with mini_batch_size 4 on 2 devices is 0.04 by the mean"),
    ],
)
def test_a_job_hears_what_its_optimizer_makes_of_its_settings(
    caplog: pytest.LogCaptureFixture, settings: dict[str, object], told: str
) -> None:
    with caplog.at_level(logging.INFO):
        explain_optimizer(tiny.tiny_job(**settings), devices=2)
    assert caplog.text.count(told) == 1


@pytest.mark.parametrize("kvstore", ["device", "local"])
def test_each_device_gathers_statistics_of_its_own_images_from_the_first_step_on(kvstore: str) -> None:
    whole = tiny.batch(4)
    two = tiny.tiny_trainer(TWO, tiny.tiny_job(_kvstore=kvstore))
    tiny.train(two, [whole])
    for device, part in enumerate((slice(0, 2), slice(2, 4))):
        alone = tiny.tiny_trainer(ONE, tiny.tiny_job())
        tiny.train(alone, [Batch(whole.images[part], whole.labels[part])])
        for name in ("stem.1.running_mean", "stem.1.running_var"):
            np.testing.assert_allclose(tiny.copies(two)[name][device], tiny.copies(alone)[name][0], rtol=1e-5)
