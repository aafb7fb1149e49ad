"""The speed of bfloat16 beside that of float32: each measured in its own precision, in a process of its own."""

from __future__ import annotations

import logging
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
        precision.advise_precision(job_of(), mx.cpu(), threading.Event())
    (record,) = caplog.records
    assert record.levelno == level and told in record.getMessage()


@pytest.mark.parametrize(
    ("changes", "device"),
    [({"precision_dtype": "float32"}, mx.cpu()), ({}, mx.gpu()), ({"num_training_samples": 396}, mx.cpu())],
    ids=["float32", "gpu", "99 iterations"],
)
def test_nothing_is_measured_without_need(
    changes: dict[str, Any], device: mx.Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "_measure_apart", lambda job, stop: pytest.fail("it was measured"))
    precision.advise_precision(job_of(**changes), device, threading.Event())
