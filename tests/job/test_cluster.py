"""Real jobs on several hosts: they train as one does, and end together, whatever happens to one of them.

CLUSTER=all runs every combination of hosts and devices, and every process killed at every moment.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import mxnet as mx
import numpy as np
import pytest
from PIL import Image

from container.mx.networks.segmentation import SegmentationNetwork, load_weights
from tests.conftest import wait_until
from tests.job import cluster

pytestmark = pytest.mark.usefixtures("ended")

ALL = os.environ.get("CLUSTER") == "all"
STEPS = {"train": 20, "mini_batch_size": "4"}  # five
TWICE_TWO = {"train": 16, "mini_batch_size": "8", "epochs": "2"}  # rounding errors grow with every step
ROUNDING = 3e-5  # found: 1.4e-5
SHAPES = [(2, 1), (2, 2), (3, 1), (3, 2)] if ALL else [(2, 2)]
DEADLINE = 30  # seconds from a host's end to that of all
PATIENCE = 300  # seconds for what a busy machine delays


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A job on one host and one device, and how it would have begun."""
    root = tmp_path_factory.mktemp("alone")
    (host,) = cluster.lay_out(root, 1, **STEPS)
    cluster.run([host], devices=1)
    yield host
    shutil.rmtree(root)


@pytest.mark.parametrize(("hosts", "devices"), SHAPES)
def test_hosts_train_as_one(tmp_path: Path, alone: Path, hosts: int, devices: int) -> None:
    roots = cluster.lay_out(tmp_path, hosts, **STEPS)
    cluster.run(roots, devices)
    assert_equal_weights(roots[0], alone)
    assert np.allclose(figures(roots[0]), figures(alone), rtol=1e-5)
    for root in roots[1:]:
        assert not [path for path in (root / "model").rglob("*") if path.is_file()]
        assert "#quality_metric" not in cluster.log(root) and "#metrics" not in cluster.log(root)


def assert_equal_weights(root: Path, alone: Path, tolerance: float = 1e-5) -> None:
    for file in ("model_algo-1", "model_best.params"):
        expected, found = cluster.weights(alone, file), cluster.weights(root, file)
        for name, weight in expected.items():
            np.testing.assert_allclose(found[name], weight, rtol=1e-5, atol=tolerance, err_msg=f"{file} {name}")


def figures(root: Path) -> list[list[float]]:
    """Every epoch's."""
    epochs = json.loads((root / "output/data/report.json").read_text())["epochs"]
    return [[entry[name] for name in ("train_loss", "mIOU", "pixel_accuracy")] for entry in epochs]


ONE_BY_ONE = {
    "accumulated": {"_accumulate": "2"},
    "accumulated as GluonCV does": {"_accumulate": "2", "_gradient_scale": "gluoncv"},
    "averaged": {"_ema": "0.5"},
    "balanced": {"_class_weights": "balanced"},
    "enet after the first pass": {"_class_weights": "enet", "_audit": "off", "_accumulate": "2"},
    "given": {"_class_weights": "[0.2, 1.7]", "_loss": "ce+dice"},
    "lovasz": {"_class_weights": "balanced", "_loss": "ce+lovasz", "_accumulate": "3"},
    "ohem": {"_loss": "ohem", "_ema": "0.9", "_clip_norm": "0.5"},
    "focal, adamw": {"_loss": "focal", "optimizer": "adamw", "_accumulate": "2"},
    "whole": {"_validation": "full"},
    "rare": {"_rare_crops": "0.9", "_class_weights": "balanced"},
}
TOGETHER = {"_class_weights": "balanced", "_loss": "ce+dice", "_accumulate": "2", "_ema": "0.5", "_validation": "full"}
SWITCHES = [*ONE_BY_ONE.values(), TOGETHER] if ALL else [TOGETHER]


@pytest.mark.parametrize("switches", SWITCHES, ids=lambda each: " ".join(each.values()))
def test_switches_do_on_hosts_what_they_do_on_one(tmp_path: Path, switches: dict[str, str]) -> None:
    settings = {**TWICE_TWO, "validation": 5, **switches}
    by_device = "_gradient_scale" in switches  # then every device's mean counts alike: as many of them, wherever
    (alone,) = cluster.lay_out(tmp_path / "alone", 1, **settings)
    cluster.run([alone], devices=4 if by_device else 1)
    for hosts, devices in [(2, 2)] if by_device else SHAPES:
        roots = cluster.lay_out(tmp_path / f"{hosts} {devices}", hosts, **settings)
        cluster.run(roots, devices)
        assert_equal_weights(roots[0], alone, ROUNDING)
        assert np.allclose(figures(roots[0]), figures(alone), rtol=1e-4)


@pytest.mark.parametrize("steps", ["1", "3", "3 5"] if ALL else ["3"])
def test_hosts_that_diverge_go_back_together(tmp_path: Path, steps: str) -> None:
    settings = {**TWICE_TWO, "_on_divergence": "retry"}
    (alone,) = cluster.lay_out(tmp_path / "alone", 1, **settings)
    cluster.run([alone], devices=1, SPOILT_STEPS=steps)
    roots = cluster.lay_out(tmp_path / "hosts", 2, **settings)
    cluster.run(roots, devices=2, SPOILT_STEPS=steps)
    lines = cluster.log(roots[0]).splitlines()
    told = [line for line in lines if "The job retries once" in line or "The job ends." in line]
    assert len(told) == len(steps.split())
    assert_equal_weights(roots[0], alone, ROUNDING)


def process(starter: subprocess.Popen[str], role: str) -> int:
    """Return the id of a host's training, or of the process beside it that has this role."""
    if role == "worker":
        return starter.pid

    def find() -> list[int]:
        children = Path(f"/proc/{starter.pid}/task/{starter.pid}/children").read_text().split()
        return [int(each) for each in children if role in Path(f"/proc/{each}/cmdline").read_text().split("\0")]

    wait_until(lambda: bool(find()), PATIENCE)
    return find()[0]


def await_log(root: Path, text: str) -> None:
    wait_until(lambda: text in cluster.log(root), PATIENCE, lambda: cluster.log(root))


MOMENTS = {
    "start": ("Host joined: host=127.0.0.2", "Host joined: host=127.0.0.1"),
    "middle": ("iterations: 2 ", ""),
    "end": ("Serializing model to {}/model/model_algo-1", ""),
}
KILLED = [("worker", 1), ("worker", 2), ("server", 1), ("server", 2), ("scheduler", 1)]
FEW = [("worker", 2, "middle"), ("server", 1, "start")]
CASES = [(*who, moment) for who in KILLED for moment in MOMENTS] if ALL else FEW


@pytest.mark.parametrize(("role", "number", "moment"), CASES)
def test_all_hosts_end_when_a_process_of_one_is_killed(tmp_path: Path, role: str, number: int, moment: str) -> None:
    epochs = "1" if moment == "end" else "1000"
    count = 3 if moment == "start" else 2  # the third never comes
    roots = cluster.lay_out(tmp_path, count, epochs=epochs, mini_batch_size="3", _logging_frequency="1")[:2]
    started = [cluster.start(root) for root in roots]
    target = process(started[number - 1], role)
    for root, text in zip(roots, MOMENTS[moment], strict=True):
        await_log(root, text.format(roots[0]))
    os.kill(target, signal.SIGKILL)
    killed = time.monotonic()
    logs = functools.partial(map, cluster.log, roots)
    wait_until(lambda: all(each.poll() is not None for each in started), PATIENCE, lambda: "\n".join(logs()))
    assert time.monotonic() - killed < DEADLINE
    codes = [each.returncode for each in started]
    if moment == "end" and codes[0] == 0:  # it came too late to do harm
        load_weights(SegmentationNetwork("fcn", "resnet-18", 2), roots[0] / "model/model_algo-1", [mx.cpu()])
        return
    for root, code in zip(roots, codes, strict=True):
        if role == "worker" and root == roots[number - 1]:
            assert code == -signal.SIGKILL
            continue
        assert code == 1, cluster.log(root)
        reason = cluster.failure(root)
        own = role != "worker" and root == roots[number - 1]
        told = f"the {role} process of this host exited by signal 9" if own else f"host 127.0.0.{number} "
        assert reason.startswith("PlatformError: ") and told in reason


def test_a_hosts_failure_is_named_on_all(tmp_path: Path) -> None:
    roots = cluster.lay_out(tmp_path, 2)
    Image.new("L", (48, 40), 9).save(roots[1] / "input/data/train_annotation/train-2.png")
    started = [cluster.start(root) for root in roots]
    assert [each.wait(PATIENCE) for each in started] == [1, 1], cluster.log(roots[0])
    reason = f"annotation of {roots[1]}/input/data/train/train-2.jpg: pixel value 9 is not a valid class ID"
    assert cluster.failure(roots[1]).startswith(f"ClientError: {reason}")
    assert cluster.failure(roots[0]).startswith(f"ClientError: host 127.0.0.2 failed, so the job failed: {reason}")


def test_a_stopped_job_leaves_a_model_and_goes_on_from_the_first_hosts_checkpoint(tmp_path: Path, alone: Path) -> None:
    roots = cluster.lay_out(tmp_path, 2, **STEPS, _logging_frequency="1")
    for root in roots:
        (root / "checkpoints").mkdir()
    started = [cluster.start(root, devices=1) for root in roots]
    await_log(roots[0], "iterations: 2 ")
    started[1].send_signal(signal.SIGTERM)
    assert [each.wait(PATIENCE) for each in started] == [0, 0], cluster.log(roots[0])
    load_weights(SegmentationNetwork("fcn", "resnet-18", 2), roots[0] / "model/model_best.params", [mx.cpu()])
    assert "stopping on request, in epoch 0" in cluster.log(roots[0])
    assert not list((roots[1] / "checkpoints").iterdir())
    cluster.run(roots, devices=1)
    for root in roots:
        assert "resuming from" in cluster.log(root)
    assert_equal_weights(roots[0], alone)


def test_shards_make_equal_steps_and_a_host_without_data_takes_part(tmp_path: Path) -> None:
    roots = cluster.lay_out(tmp_path, 2, train=7, validation=3, epochs="2", num_training_samples=None)
    cluster.shard(roots, train=(2, 5), validation=(3, 0))
    cluster.run(roots)
    report = json.loads((roots[0] / "output/data/report.json").read_text())
    log = cluster.log(roots[0])
    assert "num_training_samples is not set: counted 7 training samples" in log
    assert "LRScheduler setup: iters per epoch: 5, num_epochs 2" in log  # one of the five, and one of the two again
    assert "learning rate now follows" not in log and "has changed" not in log
    assert len(report["epochs"]) == 2
    (roots[1] / "input/data/train_annotation/train-2.png").unlink()
    started = [cluster.start(root) for root in roots]
    assert [each.wait(PATIENCE) for each in started] == [1, 1], log
    assert "so pairs are split. Use an augmented manifest in Pipe mode, or set S3DataDistributionType of " in (
        cluster.failure(roots[1])
    )


def test_streams_end_together_whatever_each_host_gets(tmp_path: Path) -> None:
    roots = cluster.lay_out(tmp_path, 2, train=6, num_training_samples="400", _shuffle_buffer="0")
    feeders = [cluster.stream(root, pairs, True) for root, pairs in zip(roots, (slice(4), slice(4, 6)), strict=True)]
    started = [cluster.start(root, feeder=feeder) for root, feeder in zip(roots, feeders, strict=True)]
    assert [each.wait(PATIENCE) for each in started] == [0, 0], cluster.log(roots[0])
    log = cluster.log(roots[0])
    assert "num_training_samples is 400, but the first epoch trained on 6 samples" in log


@pytest.mark.skipif(not ALL, reason="CLUSTER=all")
def test_a_stream_that_every_host_gets_trains_as_files_do(tmp_path: Path) -> None:
    settings = {**STEPS, "_shuffle_buffer": "0"}
    (alone,) = cluster.lay_out(tmp_path / "alone", 1, **settings)
    cluster.run([alone], devices=1)
    roots = cluster.lay_out(tmp_path / "hosts", 2, **settings)
    feeders = [cluster.stream(root, slice(None), False) for root in roots]
    started = [cluster.start(root, 1, feeder) for root, feeder in zip(roots, feeders, strict=True)]
    assert [each.wait(PATIENCE) for each in started] == [0, 0], cluster.log(roots[0])
    assert_equal_weights(roots[0], alone)


def test_a_host_that_has_no_address_or_does_not_come_is_named(tmp_path: Path) -> None:
    (root,) = cluster.lay_out(tmp_path, 1)
    for host, told in (
        ("algo-2.invalid", "algo-2.invalid: no IP address after 2 s"),
        ("127.0.0.2", "after 2 s (CLUSTER_TIMEOUT_SECONDS), 127.0.0.2 had not joined"),
    ):
        config = {"current_host": "127.0.0.1", "hosts": ["127.0.0.1", host]}
        (root / "input/config/resourceconfig.json").write_text(json.dumps(config))
        assert cluster.start(root, CLUSTER_TIMEOUT_SECONDS="2").wait(PATIENCE) == 1
        assert cluster.failure(root).startswith("PlatformError: ") and told in cluster.failure(root)
