"""A checkpoint's arrays: on any number of devices, a resumed training is the one that was interrupted."""

from __future__ import annotations

import json
from pathlib import Path

import mxnet as mx
import numpy as np
import pytest
from mxnet.contrib.amp.loss_scaler import LossScaler

from container.errors import ClientError
from container.mx.checkpoint import checkpoint_bytes, load_arrays, save_arrays
from container.mx.trainer import Trainer
from tests.mx.tiny import batch, copies, cpus, tiny_job, tiny_trainer, train

OPTIMIZERS = ["sgd", "nag", "adam", "rmsprop", "adagrad", "adadelta", "adamw"]
SIZES = (5, 4, 1, 3)  # none of them divides evenly by 2 and by 3
BATCHES = [batch(size, seed) for seed, size in enumerate(SIZES)]


def assert_one_network(held: dict[str, list[np.ndarray]]) -> None:
    for name, arrays in held.items():
        if "running" not in name:
            assert all(np.array_equal(arrays[0], each) for each in arrays), f"{name} differs between devices"


@pytest.mark.parametrize("devices", [1, 2, 3])
@pytest.mark.parametrize("optimizer", [*OPTIMIZERS, "centered rmsprop"])
def test_a_resumed_training_goes_on_as_if_it_had_never_stopped(tmp_path: Path, optimizer: str, devices: int) -> None:
    centered = optimizer.startswith("centred")
    job = tiny_job(optimizer=optimizer.removeprefix("centered "), _rmsprop_centered=centered)
    rate = 0.01 if optimizer in ("sgd", "nag") else 1e-4  # adaptive ones make much of what is lost in rounding
    through = tiny_trainer(cpus(devices), job)
    train(through, BATCHES[:2], rate=rate)
    through.synchronize_replicas()
    numbers = save_arrays(through, tmp_path / "weights", tmp_path / "optimizer")
    expected = train(through, BATCHES[2:], 2, rate)

    resumed = tiny_trainer(cpus(devices), job)
    load_arrays(resumed, tmp_path / "weights", tmp_path / "optimizer", numbers)
    assert resumed.updates == 2
    assert train(resumed, BATCHES[2:], 2, rate) == pytest.approx(expected, rel=1e-5)
    held, wanted = copies(resumed), copies(through)
    assert_one_network(wanted)
    assert_one_network(held)
    for name in wanted:
        np.testing.assert_allclose(held[name][0], wanted[name][0], rtol=1e-4, atol=2e-5, err_msg=name)
    resumed.synchronize_replicas()


@pytest.mark.parametrize("stop", [1, 2, 3])
@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize(
    "settings",
    [
        {"_ema": 0.9},
        {"_accumulate": 3},
        {"_accumulate": 2, "_ema": 0.5, "optimizer": "adamw", "_clip_norm": 0.1, "_class_weights": [1, 2, 5]},
        {"_accumulate": 3, "_loss": "ce+dice", "_gradient_scale": "mean", "_freeze_batchnorm": True},
    ],
    ids=["ema", "accumulate", "all", "dice"],
)
def test_averages_and_what_is_accumulated_go_on_too(
    tmp_path: Path, settings: dict[str, object], devices: int, stop: int
) -> None:
    job = tiny_job(**settings)
    rate = 1e-4 if "optimizer" in settings else 0.05
    through = tiny_trainer(cpus(devices), job)
    train(through, BATCHES[:stop], rate=rate)
    through.synchronize_replicas()
    numbers = json.loads(json.dumps(save_arrays(through, tmp_path / "weights", tmp_path / "optimizer")))
    train(through, BATCHES[stop:], stop, rate)

    resumed = tiny_trainer(cpus(devices), job)
    load_arrays(resumed, tmp_path / "weights", tmp_path / "optimizer", numbers)
    train(resumed, BATCHES[stop:], stop, rate)
    held = []
    for trainer in (through, resumed):
        trainer.flush(rate)
        trainer.save_weights(tmp_path / "last")
        last = {name: array.asnumpy() for name, array in mx.nd.load(str(tmp_path / "last")).items()}
        held.append((last, {name: arrays[0] for name, arrays in copies(trainer).items()}))
    assert resumed.updates == through.updates
    for wanted, found in zip(held[0], held[1], strict=True):
        for name in wanted:
            if "running" in name and devices > 1:  # MXNet gives all CPUs one's statistics in a process's first step
                continue
            np.testing.assert_allclose(found[name], wanted[name], rtol=1e-4, atol=2e-5, err_msg=name)


def test_what_two_devices_have_accumulated_one_goes_on_with(tmp_path: Path) -> None:
    job = tiny_job(_accumulate=2, _gradient_scale="mean")
    held = []
    for before, after in ((2, 2), (2, 1), (1, 2)):
        trainer = tiny_trainer(cpus(before), job, use_global_stats=True)
        trainer.network.head[0]._rate = 0.0
        train(trainer, BATCHES[:1])
        numbers = save_arrays(trainer, tmp_path / "weights", tmp_path / "optimizer")
        assert numbers["accumulated"]["made"] == 1
        trainer = tiny_trainer(cpus(after), job, use_global_stats=True)
        trainer.network.head[0]._rate = 0.0
        load_arrays(trainer, tmp_path / "weights", tmp_path / "optimizer", numbers)
        train(trainer, BATCHES[1:2])
        held.append(copies(trainer)["stage4.weight"][0])
    np.testing.assert_allclose(held[1], held[0], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(held[2], held[0], rtol=1e-4, atol=1e-6)


def test_an_update_may_be_all_that_is_left_to_do(tmp_path: Path) -> None:
    """In mixed precision, where gradients are accumulated times the loss scale."""
    held = []
    for resumes in (False, True):
        trainer = mixed_trainer()
        train(trainer, BATCHES[:1])
        if resumes:
            numbers = save_arrays(trainer, tmp_path / "weights", tmp_path / "optimizer")
            trainer = mixed_trainer()
            load_arrays(trainer, tmp_path / "weights", tmp_path / "optimizer", numbers)
        before = copies(trainer)["stage4.weight"][0]
        trainer.flush(0.1)
        held.append(copies(trainer)["stage4.weight"][0] - before)
    assert np.abs(held[0]).max() > 1e-6
    np.testing.assert_allclose(held[1], held[0], rtol=1e-4, atol=1e-8)


def mixed_trainer() -> Trainer:
    """A trainer that scales its losses as AMP's does, without the rest of AMP, which would be the whole process's."""
    trainer = tiny_trainer(cpus(1), tiny_job(_accumulate=4))
    trainer._mixed = True
    trainer.optimizer._amp_loss_scaler, trainer.optimizer._amp_original_scale = LossScaler(), 1.0
    return trainer


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_several_devices_train_as_one(optimizer: str) -> None:
    job = tiny_job(optimizer=optimizer, _gradient_scale="mean")
    losses = []
    for devices in (1, 2, 3):
        trainer = tiny_trainer(cpus(devices), job, use_global_stats=True)
        trainer.network.head[0]._rate = 0.0  # devices draw dropout of their own
        losses.append(train(trainer, BATCHES, rate=0.003))
        assert_one_network(copies(trainer))
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert losses[2] == pytest.approx(losses[0], rel=1e-4)


def test_a_resumed_training_draws_its_own_dropout(tmp_path: Path) -> None:
    trainer = tiny_trainer(cpus(1), tiny_job())
    weights, optimizer = tmp_path / "weights", tmp_path / "optimizer"
    numbers = save_arrays(trainer, weights, optimizer)  # before the first step there are no arrays yet
    losses = []
    for first in (0, 1, 0):
        load_arrays(trainer, weights, optimizer, numbers)
        losses += train(trainer, BATCHES[:1], first=first, rate=0.0)
    assert losses[0] == losses[2] != losses[1]


def test_a_loss_scale_is_kept(tmp_path: Path) -> None:
    class Scaler:
        _loss_scale, _next_loss_scale, _unskipped = 2.0**16, 2.0**16, 0

    trainer, resumed = (tiny_trainer(cpus(1), tiny_job()) for _ in range(2))
    trainer.optimizer._amp_loss_scaler, resumed.optimizer._amp_loss_scaler = Scaler(), Scaler()
    trainer.optimizer._amp_loss_scaler._next_loss_scale = 512.0
    trainer.optimizer._amp_loss_scaler._unskipped = 77
    numbers = save_arrays(trainer, tmp_path / "weights", tmp_path / "optimizer")
    load_arrays(resumed, tmp_path / "weights", tmp_path / "optimizer", numbers)
    assert vars(resumed.optimizer._amp_loss_scaler) == {
        "_loss_scale": 65536.0,
        "_next_loss_scale": 512.0,
        "_unskipped": 77,
    }


@pytest.mark.parametrize(
    ("earlier", "now", "reason"),
    [
        ({"optimizer": "adam"}, {"optimizer": "sgd"}, ":1 is not an array of this optimizer"),
        ({"optimizer": "sgd"}, {"optimizer": "adam"}, ":1'"),
        ({"_aux_loss": False}, {}, "auxlayer.0.(weight|bias):0"),
    ],
)
def test_arrays_of_another_optimizer_are_refused(
    tmp_path: Path, earlier: dict[str, object], now: dict[str, object], reason: str
) -> None:
    weights, optimizer = tmp_path / "weights", tmp_path / "optimizer"
    trainer = tiny_trainer(cpus(1), tiny_job(**earlier))
    train(trainer, BATCHES[:1])
    numbers = save_arrays(trainer, weights, optimizer)
    with pytest.raises(ClientError, match=f"does not match the model of this job: .*{reason}.*_resume=restart"):
        load_arrays(tiny_trainer(cpus(1), tiny_job(**now)), weights, optimizer, numbers)


def test_arrays_are_called_by_their_parameter(tmp_path: Path) -> None:
    trainer = tiny_trainer(cpus(1), tiny_job(optimizer="adam"))
    train(trainer, BATCHES[:1])
    save_arrays(trainer, tmp_path / "weights", tmp_path / "optimizer")
    names = set(mx.nd.load(str(tmp_path / "optimizer")))
    assert {"head.1.weight:0", "head.1.weight:1", "stem.0.bias:1"} <= names
    assert len(names) == 2 * 12


@pytest.mark.parametrize("optimizer", [*OPTIMIZERS, "centered rmsprop"])
@pytest.mark.parametrize("settings", [{}, {"_ema": 0.9, "_accumulate": 3}], ids=["plain", "averaged, accumulated"])
def test_a_checkpoint_takes_what_is_foreseen_before_the_first_step(
    tmp_path: Path, optimizer: str, settings: dict[str, object]
) -> None:
    """At its largest: between two updates, with the best weights beside its own."""
    centered = optimizer.startswith("centred")
    job = tiny_job(optimizer=optimizer.removeprefix("centered "), _rmsprop_centered=centered, **settings)
    trainer = tiny_trainer(cpus(2), job)
    foreseen = checkpoint_bytes(trainer)
    train(trainer, BATCHES, rate=1e-4)
    save_arrays(trainer, tmp_path / "weights", tmp_path / "optimizer")
    arrays = [*mx.nd.load(str(tmp_path / "weights")).values()] * 2
    if (tmp_path / "optimizer").stat().st_size > 100:
        arrays += mx.nd.load(str(tmp_path / "optimizer")).values()
    written = sum(array.asnumpy().nbytes for array in arrays)
    headers = 256 * len(arrays)
    assert written <= foreseen <= written + headers
