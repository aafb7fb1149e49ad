"""Training on GPUs: all of them are one network, in float32 and float16, and a killed job goes on."""

from __future__ import annotations

import math
from pathlib import Path

import mxnet as mx
import numpy as np
import pytest

from tests.conftest import JobFactory, job_factory
from tests.gpu.cards import compute_capabilities
from tests.gpu.jobs import resumed, run_job
from tests.gpu.movement import all_cases, check_movement, expected, moved, moved_in_mixed_precision
from tests.gpu.steps import steady_network, synchronized, train_steps

STEPS = 3


@pytest.mark.parametrize("kvstore", ["device", "nccl", "local"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_all_gpus_train_as_one(gpus: int, kvstore: str, optimizer: str) -> None:
    one, all_of_them = [mx.gpu(0)], [mx.gpu(index) for index in range(gpus)]
    expected = train_steps(steady_network(one), one, 2 * gpus, STEPS, optimizer=optimizer)
    losses, weights = train_steps(
        steady_network(all_of_them), all_of_them, 2 * gpus, STEPS, optimizer=optimizer, _kvstore=kvstore
    )
    assert losses == pytest.approx(expected[0], rel=1e-3)
    if optimizer == "sgd":  # adam divides by the gradient's size: what rounds differently moves as far
        for name, weight in weights.items():
            np.testing.assert_allclose(weight, expected[1][name], rtol=1e-2, atol=1e-4, err_msg=name)


def test_synchronized_statistics_are_those_of_the_whole_batch(gpus: int) -> None:
    one, all_of_them = [mx.gpu(0)], [mx.gpu(index) for index in range(gpus)]
    whole = train_steps(steady_network(one, norm_kwargs={}), one, 2 * gpus, STEPS)
    losses, weights = train_steps(
        steady_network(all_of_them, **synchronized(all_of_them)), all_of_them, 2 * gpus, STEPS
    )
    assert losses == pytest.approx(whole[0], rel=1e-2)
    for name in (name for name in weights if name.endswith("running_mean")):
        np.testing.assert_allclose(weights[name], whole[1][name], rtol=2e-2, atol=1e-3, err_msg=name)


@pytest.mark.parametrize("algorithm", ["fcn", "psp", "deeplab"])
def test_float16_learns_as_float32_does(tmp_path: Path, algorithm: str) -> None:
    losses = {}
    for precision in ("float32", "float16"):
        root = job_factory(tmp_path / precision)(
            train=16, epochs="3", algorithm=algorithm, precision_dtype=precision, mini_batch_size="8", crop_size="64"
        )
        ended = run_job(root)
        assert ended.code == 0, ended.log
        losses[precision] = ended.losses
        assert ended.report["validation"]["complete"], ended.report
    assert len(losses["float16"]) == 3 and all(map(math.isfinite, losses["float16"]))
    assert losses["float16"] == pytest.approx(losses["float32"], rel=0.2)


def test_what_should_move_moves_in_the_direction_of_float32(tmp_path: Path) -> None:
    count = min(2, len(compute_capabilities()))
    found, through, resumed_later = moved_in_mixed_precision(count, tmp_path / "moved.npz")
    devices = [mx.gpu(index) for index in range(count)]
    for case, movement in zip(all_cases(), found, strict=True):
        if case["devices"] <= count:
            wanted = expected(case)
            check_movement(case, moved(case, devices, "float32"), wanted, exact=False)
            check_movement(case, movement, wanted, exact=False)
    for name, movement in through.items():
        np.testing.assert_allclose(resumed_later[name], movement, rtol=0.1, atol=0.02 * np.abs(movement).max())


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_a_killed_job_goes_on_where_it_was(tmp_path: Path, precision: str) -> None:
    settings = {"train": 16, "epochs": "3", "mini_batch_size": "8", "precision_dtype": precision, "optimizer": "adam"}
    undisturbed = run_job(job_factory(tmp_path / "undisturbed")(**settings))
    killed, ended = resumed(job_factory(tmp_path / "killed")(**settings), epochs_done=2, epochs=3)
    assert ended.code == 0, ended.log
    assert len(killed.losses) == 2 and len(ended.losses) == 1
    assert len(ended.report["epochs"]) == 3
    assert killed.losses + ended.losses == pytest.approx(undisturbed.losses, rel=0.2)


@pytest.mark.hopper
def test_a_card_of_a_later_kind_is_refused_in_one_clear_line(make_job: JobFactory) -> None:
    root = make_job()
    ended = run_job(root)
    assert ended.code == 1, ended.log
    assert (
        (root / "output/failure")
        .read_text()
        .startswith("ClientError: MXNet 1.9.1 cannot run on this GPU: it holds code")
    )
