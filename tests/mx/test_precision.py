"""The speed of bfloat16 beside that of float32: each measured in its own precision, in a process of its own."""

from __future__ import annotations

import errno
import logging
import resource
import subprocess
import sys
import threading
import time
from typing import Any

import mxnet as mx
import pytest

from container.environment import processor_has
from container.hyperparameters import Hyperparameters, load
from container.mx import precision
from tests.conftest import PROGRAM

COUNT_CASTS = """
from container.hyperparameters import load
from container.mx.precision import prepare_trainers
job = load({"num_classes": 3, "algorithm": "fastscnn", "num_training_samples": 4, "precision_dtype": "float16"})
for trainer in prepare_trainers(job):
    print(trainer._loss._cached_graph[1].tojson(remove_amp_cast=False).count('"amp_cast"'))
"""


def job_of(**changes: Any) -> Hyperparameters:
    settings = {"num_classes": 3, "algorithm": "fastscnn", "num_training_samples": 400, "mini_batch_size": 4}
    return load({**settings, "epochs": 1, "crop_size": 32, "precision_dtype": "float16", **changes})


@pytest.mark.skipif(not processor_has("avx512bw"), reason="this processor does not train in bfloat16")
def test_each_precision_has_its_own_graph_and_its_own_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "_SECONDS", 900)  # on a busy machine, too
    done = subprocess.run([sys.executable, "-c", COUNT_CASTS], cwd=PROGRAM, capture_output=True, text=True, check=True)
    single, half = map(int, done.stdout.split())
    assert single == 2  # of the two heads' logits, which the network makes float32 whatever they were
    assert half > 2 * 44  # an image and a kernel for every convolution
    seconds = precision._measure_apart(job_of(_accumulate=2, _ema=0.5, _class_weights=[1, 2, 3]), threading.Event())
    assert seconds is not None and min(seconds) > 0


def test_a_measurement_that_is_no_longer_wanted_ends_at_once() -> None:
    stop = threading.Event()
    stop.set()
    begun = time.monotonic()
    assert precision._measure_apart(job_of(), stop) is None
    assert time.monotonic() - begun < 10


def test_a_job_longer_than_a_command_line_can_be_measured() -> None:
    names = {str(label): "画" * 200 for label in range(254)}  # 300 kB of JSON; Linux takes 128 kB per argument
    stop = threading.Event()
    stop.set()
    assert precision._measure_apart(job_of(num_classes=254, _class_names=names), stop) is None


def test_a_measurement_without_room_for_a_process_does_not_end_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **settings: Any) -> None:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    assert precision._measure_apart(job_of(), threading.Event()) is None


def test_a_measurement_takes_no_more_memory_than_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "memory_available", lambda: 700 * 2**20)
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    assert precision._measure_apart(job_of(mini_batch_size=16, crop_size=480), threading.Event()) is None
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss <= max(before, 700 * 2**10)  # kB


@pytest.mark.parametrize(
    ("seconds", "level", "told"),
    [
        ((1.2, 1.0), logging.WARNING, "an iteration takes 1.2 s in bfloat16 and 1 s in float32 (medians of 3). Set"),
        ((1.04, 1.0), logging.INFO, "an iteration takes 1.04 s in bfloat16 and 1 s in float32"),
        ((0.5, 1.0), logging.INFO, "an iteration takes 0.5 s in bfloat16 and 1 s in float32"),
        (None, logging.INFO, "were not compared"),
    ],
)
def test_the_faster_precision_is_advised(
    seconds: tuple[float, float] | None,
    level: int,
    told: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(precision, "_measure_apart", lambda job, stop: seconds)
    with caplog.at_level(logging.INFO):
        precision.advise_precision(job_of(epochs=500), mx.cpu(), threading.Event())
    (record,) = caplog.records
    assert record.levelno == level and told in record.getMessage()


@pytest.mark.parametrize(
    ("changes", "device"),
    [
        ({"precision_dtype": "float32"}, mx.cpu()),
        ({}, mx.gpu()),
        ({"num_training_samples": 396, "crop_size": 1024, "epochs": 1}, mx.cpu()),
        ({"epochs": 480}, mx.cpu()),  # 400 crops of 32×32: a job of one or two minutes
    ],
    ids=["float32", "gpu", "99 iterations", "small crops"],
)
def test_nothing_is_measured_without_need(
    changes: dict[str, Any], device: mx.Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "_measure_apart", lambda job, stop: pytest.fail("it was measured"))
    precision.advise_precision(job_of(**{"epochs": 500, **changes}), device, threading.Event())
