"""What tests/gpu compares with, on CPU contexts: so that it has run before it meets a GPU."""

from __future__ import annotations

import threading
from pathlib import Path

import mxnet as mx
import numpy as np
import pytest

from container.mx.inference.evaluation import MXNetEvaluator, without_autotuning
from tests.conftest import job_factory
from tests.gpu import cards
from tests.gpu.jobs import resumed
from tests.gpu.steps import memory_of_sizes, seconds_of_sizes, steady_network, synchronized, train_steps

ONE, TWO = [mx.cpu(0)], [mx.cpu(0), mx.cpu(1)]


def test_two_contexts_train_as_one() -> None:
    losses, weights = train_steps(steady_network(ONE), ONE, 4, 2)
    of_two = train_steps(steady_network(TWO), TWO, 4, 2, _kvstore="device")
    assert of_two[0] == pytest.approx(losses, rel=1e-3)
    for name, weight in weights.items():
        np.testing.assert_allclose(of_two[1][name], weight, rtol=1e-2, atol=1e-4, err_msg=name)


def test_synchronized_statistics_of_one_context_are_its_own() -> None:
    plain = train_steps(steady_network(ONE, norm_kwargs={}), ONE, 2, 1)  # several CPU contexts would wait for ever
    alike = train_steps(steady_network(ONE, **synchronized(ONE)), ONE, 2, 1)
    assert alike[0] == pytest.approx(plain[0], rel=1e-2)


def test_sizes_are_timed_and_their_memory_is_noted() -> None:
    evaluator = MXNetEvaluator(steady_network(TWO), TWO, threading.Event())
    used = iter(range(100))
    with without_autotuning():
        times = seconds_of_sizes(evaluator, [(24, 32), (40, 16)])
        assert memory_of_sizes(evaluator, [(8, 8), (9, 9), (10, 8)], lambda: next(used)) == [0, 1, 2]
    assert len(times) == 2 and all(seconds > 0 for pair in times for seconds in pair)


def test_a_job_is_killed_where_it_should_be_and_goes_on(tmp_path: Path) -> None:
    root = job_factory(tmp_path)(train=2, validation=1, epochs="2", optimizer="adam", _report_minutes="0")
    killed, ended = resumed(root, epochs_done=1, epochs=2)
    assert ended.code == 0, ended.log
    assert len(killed.losses) == 1 and len(ended.losses) == 1
    assert len(ended.report["epochs"]) == 2


def test_cards_are_read_as_the_driver_prints_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nvidia-smi").write_text(
        '#!/bin/sh\ncase "$1" in *compute_cap) echo 7.5; echo 7.5;; *) echo 310; echo 4;; esac\n'
    )
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    assert cards.compute_capabilities() == [7.5, 7.5]
    assert cards.used_megabytes() == [310, 4]
