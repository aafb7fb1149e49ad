"""Failures: the file that becomes the job's FailureReason, and the exit code."""

from __future__ import annotations

import errno
import logging
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from container.errors import ClientError
from container.training import job
from tests.conftest import JobFactory


@pytest.fixture(autouse=True)
def _undo_what_a_process_sets() -> Iterator[None]:
    handlers, on_sigterm = logging.root.handlers[:], signal.getsignal(signal.SIGTERM)
    yield
    logging.root.handlers[:] = handlers
    signal.signal(signal.SIGTERM, on_sigterm)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ClientError("channel train is missing"), "ClientError: channel train is missing"),
        (
            OSError(errno.ENOSPC, "No space left on device"),
            "PlatformError: the disk is full: give the job a larger volume",
        ),
        (MemoryError(), "ClientError: memory ran out: lower mini_batch_size or crop_size"),
        (RuntimeError("cudaMalloc failed: out of memory"), "ClientError: memory ran out: lower mini_batch_size"),
        (KeyError("surprise"), "AlgorithmError: KeyError: 'surprise'"),
        (ClientError("x" * 5000), "ClientError: " + "x" * 1011),
    ],
)
def test_a_failure_is_laid_at_the_right_door(
    make_job: JobFactory, monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str
) -> None:
    root = make_job()

    def fail(*arguments: object) -> None:
        raise error

    monkeypatch.setattr(job, "run", fail)
    monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(root))
    assert job.main(threading.Event()) == 1
    written = (root / "output/failure").read_text()
    assert written.startswith(reason)
    assert len(written) <= 1024


def test_a_root_without_a_job_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(tmp_path / "nothing"))
    assert job.main(threading.Event()) == 1
    written = (tmp_path / "nothing/output/failure").read_text()
    assert written.startswith(f"ClientError: there is no {tmp_path}/nothing/input/config/hyperparameters.json: mount")
