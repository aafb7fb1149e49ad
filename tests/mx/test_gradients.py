"""Accumulated steps are the large batch's one step; a gradient that is too long is scaled to its limit."""

from __future__ import annotations

import logging
from typing import Any

import mxnet as mx
import numpy as np
import pytest
from mxnet.contrib.amp.loss_scaler import LossScaler

from container.data.batches import Batch
from container.errors import AlgorithmError
from container.mx.networks.architectures import create_network
from container.mx.networks.segmentation import initialize_weights
from container.mx.replicas import TrainingDivergedError
from container.mx.trainer import Trainer
from tests.mx import tiny

WHOLE = [tiny.batch(8, seed) for seed in range(2)]


def parts(batch: Batch, size: int) -> list[Batch]:
    return [Batch(batch.images[at : at + size], batch.labels[at : at + size]) for at in range(0, len(batch), size)]


def fixed(devices: int, **changes: Any) -> Trainer:
    """A trainer whose batch statistics and dropout are fixed."""
    trainer = tiny.tiny_trainer(tiny.cpus(devices), tiny.tiny_job(**changes), use_global_stats=True)
    trainer.network.head[0]._rate = 0.0
    return trainer


@pytest.mark.parametrize("loss", ["ce", "ce+dice", "ce+lovasz", "focal", "ohem"])
@pytest.mark.parametrize(
    ("devices", "settings"),
    [
        (1, {"optimizer": "sgd"}),
        (1, {"optimizer": "adam"}),
        (2, {"optimizer": "sgd", "_gradient_scale": "mean", "_class_weights": [1, 2, 5]}),
        (1, {"optimizer": "nag", "_clip_norm": 0.01, "_class_weights": [1, 2, 5]}),
    ],
    ids=["sgd", "adam", "two-devices", "clipped-nag"],
)
def test_accumulated_steps_are_the_large_batchs(devices: int, settings: dict[str, Any], loss: str) -> None:
    small, large = (
        fixed(devices, _loss=loss, mini_batch_size=size, _accumulate=8 // size, **settings) for size in (2, 8)
    )
    rate = 0.001 if settings["optimizer"] == "adam" else 0.1
    start = tiny.copies(large)["stage4.weight"][0]
    for whole in WHOLE:
        tiny.train(small, parts(whole, 2), rate=rate)
        tiny.train(large, [whole], rate=rate)
    assert small.updates == large.updates == 2
    moved = tiny.copies(large)
    assert np.abs(moved["stage4.weight"][0] - start).max() > 1e-4
    for name, arrays in tiny.copies(small).items():
        np.testing.assert_allclose(arrays[0], moved[name][0], rtol=1e-5, atol=1e-5, err_msg=name)


def test_nothing_moves_before_the_update_and_a_flush_makes_it_early() -> None:
    trainer, other = fixed(1, mini_batch_size=2, _accumulate=4), fixed(1, mini_batch_size=4)
    start = tiny.copies(trainer)
    two = parts(WHOLE[0], 2)[:2]
    tiny.train(trainer, two)
    assert trainer.updates == 0
    assert all(np.array_equal(arrays[0], start[name][0]) for name, arrays in tiny.copies(trainer).items())
    trainer.flush(0.01)
    trainer.flush(0.01)
    assert trainer.updates == 1
    tiny.train(other, [Batch(np.concatenate([b.images for b in two]), np.concatenate([b.labels for b in two]))])
    for name, arrays in tiny.copies(other).items():
        np.testing.assert_allclose(tiny.copies(trainer)[name][0], arrays[0], rtol=1e-5, atol=1e-6, err_msg=name)


def step_length(**changes: Any) -> float:
    """How far a plain step with rate 1 moves all weights: the norm of the gradient that the optimizer was given."""
    trainer = fixed(changes.pop("devices", 1), momentum=1e-9, weight_decay=1e-12, _aux_loss=False, **changes)
    for parameter in trainer.network.collect_params().values():
        parameter.lr_mult = 1
    before = tiny.copies(trainer)
    tiny.train(trainer, WHOLE[:1], rate=1.0)
    after = tiny.copies(trainer)
    return float(np.sqrt(sum(((after[name][0] - before[name][0]) ** 2).sum() for name in before)))


@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize("scale", ["mean", "gluoncv"])
def test_a_gradient_is_scaled_down_to_the_largest_norm_but_never_up(devices: int, scale: str) -> None:
    free = step_length(devices=devices, _gradient_scale=scale)
    assert free > 1e-3
    settings = {"devices": devices, "_gradient_scale": scale}
    assert step_length(_clip_norm=free / 3, **settings) == pytest.approx(free / 3, rel=1e-4)
    assert step_length(_clip_norm=free * 3, **settings) == pytest.approx(free, rel=1e-5)


def test_clipping_does_not_hide_that_training_diverges() -> None:
    trainer = fixed(1, _clip_norm=0.1)
    trainer.network.stage4.weight.data()[:] = 1e30  # gradients whose squares are beyond float32
    tiny.train(trainer, WHOLE[:1])
    with pytest.raises(TrainingDivergedError):
        trainer.synchronize_replicas()


def test_frozen_layers_stay_so() -> None:
    trainer = fixed(1)
    trainer.network.stem.collect_params().setattr("grad_req", "null")
    job = tiny.tiny_job(mini_batch_size=2, _accumulate=2, _clip_norm=0.1, _ema=0.5, optimizer="adamw")
    trainer = Trainer(trainer.network, job, [mx.cpu()])
    start = tiny.copies(trainer)
    tiny.train(trainer, parts(WHOLE[0], 2), rate=0.01)
    moved = {name for name, arrays in tiny.copies(trainer).items() if not np.array_equal(arrays[0], start[name][0])}
    assert moved == {name for name in start if not name.startswith("stem")}


class Losing(tiny.TinyNetwork):
    """A network in which the gradient of one convolution is lost."""

    def encode(self, F: Any, images: Any) -> tuple[Any, Any, Any]:
        x, stage3, stage4 = super().encode(F, images)
        return x, stage3, F.BlockGrad(stage4)


def losing() -> tiny.TinyNetwork:
    network = Losing()
    network.initialize(mx.init.Xavier())
    network.hybridize()
    return network


@pytest.mark.parametrize("settings", [{}, {"_accumulate": 2}, {"_clip_norm": 0.1, "_ema": 0.5, "_hybrid": True}])
def test_a_kernel_whose_gradient_is_lost_is_named(settings: dict[str, Any]) -> None:
    trainer = Trainer(losing(), tiny.tiny_job(**settings), [mx.cpu()])
    before = tiny.copies(trainer)
    with pytest.raises(AlgorithmError, match=r"stage4\.weight does not train: its gradient in the first update is 0, "):
        tiny.train(trainer, WHOLE)
    after = tiny.copies(trainer)
    assert all(np.array_equal(after[name][0], before[name][0]) for name in before if "running" not in name)


def test_gradients_are_checked_when_a_pixel_has_a_label() -> None:
    trainer = Trainer(losing(), tiny.tiny_job(), [mx.cpu()])
    nothing = Batch(WHOLE[0].images, np.full_like(WHOLE[0].labels, 255))
    tiny.train(trainer, [nothing, nothing])
    with pytest.raises(AlgorithmError, match="does not train"):
        tiny.train(trainer, WHOLE[:1])


def blind(name: str) -> Trainer:
    """A trainer of a network in which the loss does not depend on a kernel."""
    job, devices = tiny.tiny_job(_hybrid=name == "static"), tiny.cpus(2)
    if name == "pooled":  # a batch norm of one image's one pixel returns its shift
        job = tiny.tiny_job(algorithm="psp", backbone="resnet-18")
        network = create_network("psp", tiny.CLASSES, "resnet-18")
        mx.random.seed(3)
        np.random.seed(3)
        initialize_weights(network)
        network.collect_params().reset_ctx(devices)
        network.hybridize()
        return Trainer(network, job, devices)
    trainer = tiny.tiny_trainer(devices, job)
    trainer.network.stem[1].gamma.set_data(mx.nd.zeros(6))
    if name == "dead":
        trainer.network.stem[1].beta.set_data(mx.nd.full(6, -9))
    return trainer


@pytest.mark.parametrize(
    ("name", "kernel"),
    [
        ("pooled", "head.psp.conv1.0.weight"),
        ("zero scale", "stem.0.weight"),
        ("dead", "stem.0.weight"),
        ("static", "stem.0.weight"),
    ],
)
def test_a_kernel_that_the_loss_does_not_depend_on_is_reported_and_changes_nothing(
    name: str, kernel: str, caplog: pytest.LogCaptureFixture
) -> None:
    two = [parts(whole, 2)[0] for whole in WHOLE]
    trainer, unchecked = blind(name), blind(name)
    unchecked._gradients_checked = True
    losses = tiny.train(trainer, two), tiny.train(unchecked, two)
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    expected = tiny.copies(unchecked)
    for key, arrays in tiny.copies(trainer).items():
        for array, wanted in zip(arrays, expected[key], strict=True):
            np.testing.assert_allclose(array, wanted, rtol=1e-2, atol=1e-4, err_msg=key)
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len([text for text in warnings if kernel in text and "does not depend on" in text]) == 1


def test_skipping_every_update_is_divergence_and_a_second_try_has_the_first_loss_scale() -> None:
    trainer = fixed(1)
    trainer._mixed = True  # as with AMP, which would change this process
    trainer.optimizer._amp_loss_scaler, trainer.optimizer._amp_original_scale = LossScaler(), 1.0
    own = trainer.copy_weights()
    trainer.network.stage4.weight.data()[:] = np.nan
    with pytest.raises(
        TrainingDivergedError, match="gradients are not finite at any loss scale: AMP has skipped every update"
    ):
        tiny.train(trainer, WHOLE[:1] * 40)
    assert trainer.updates == 0
    trainer.reset_optimizer()
    trainer.set_weights(own)
    tiny.train(trainer, WHOLE)
    assert trainer.updates == 2
    assert not np.array_equal(tiny.copies(trainer)["stage4.weight"][0], own["stage4.weight"].asnumpy())
