"""The int8 model: when a job writes and saves it (values computed by hand), and the child process that quantizes."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from container.errors import AlgorithmError, ClientError, JobCancelledError
from container.metrics import ConfusionMatrix
from container.training.scoring.evaluation import EvaluationResult
from container.training.scoring.quantization import _run, is_accurate, is_approved, reason_to_skip

SLEEP = "import os, pathlib, sys, time; pathlib.Path(sys.argv[1]).write_text(str(os.getpid())); time.sleep(600)"


def test_child_process_is_killed_on_stop(tmp_path: Path) -> None:
    stop, pid = threading.Event(), tmp_path / "pid"

    def stop_once_it_runs() -> None:
        deadline = time.monotonic() + 60
        while not (pid.exists() and pid.read_text()) and time.monotonic() < deadline:
            threading.Event().wait(0.01)
        stopped.append(time.monotonic())
        stop.set()

    stopped: list[float] = []
    threading.Thread(target=stop_once_it_runs).start()
    with pytest.raises(JobCancelledError):
        _run([sys.executable, "-c", SLEEP, str(pid)], tmp_path / "errors", stop)
    assert time.monotonic() - stopped[0] < 2
    assert not Path("/proc", pid.read_text()).exists()


@pytest.mark.parametrize(
    ("line", "kind", "reason"),
    [
        ("ClientError: there is no image", ClientError, "^there is no image$"),
        ("MemoryError", AlgorithmError, "^the quantization process failed: MemoryError$"),
    ],
)
def test_error_of_the_child_process_is_raised(tmp_path: Path, line: str, kind: type[Exception], reason: str) -> None:
    program = f"import sys; print('a warning', file=sys.stderr); sys.exit({line!r})"
    with pytest.raises(kind, match=reason):
        _run([sys.executable, "-c", program], tmp_path / "errors", threading.Event())


def compare(float32: list[list[int]], int8: list[list[int]], images: int, total: int) -> EvaluationResult:
    confusions = [ConfusionMatrix(2), ConfusionMatrix(2)]
    for confusion, counts in zip(confusions, (float32, int8), strict=True):
        confusion.counts[:] = np.array(counts)
    names = [f"{number}.jpg" for number in range(images)]
    return EvaluationResult(confusions, total, names, reason=None if images == total else "the time limit was reached")


@pytest.mark.parametrize(("tolerance", "saved"), [(0.19, False), (0.21, True)])
def test_int8_model_is_saved_within_the_tolerance(tolerance: float, saved: bool) -> None:
    # mIOU: (8/10 + 8/10) / 2 = 0.8 and (6/10 + 6/10) / 2 = 0.6
    result = compare([[8, 1], [1, 8]], [[6, 2], [2, 6]], 3, 3)
    assert is_accurate(result, tolerance) is saved


@pytest.mark.parametrize(("images", "total", "approved"), [(3, 3, True), (49, 100, False), (50, 100, True)])
def test_int8_model_is_approved_by_all_images_or_by_50(images: int, total: int, approved: bool) -> None:
    assert is_approved(compare([[1, 0], [0, 1]], [[1, 0], [0, 1]], images, total)) is approved


def never() -> float:
    raise AssertionError("the result does not depend on it")


def test_quantize_true_always_writes_the_int8_model() -> None:
    assert reason_to_skip(True, 0, 10**6, never) == ""


def test_quantize_false_writes_no_int8_model() -> None:
    assert reason_to_skip(False, 10**6, 1, never) == "_quantize is False"


@pytest.mark.parametrize(
    ("hours", "images", "seconds", "makes"),
    [
        (36, 1449, 0.6, True),  # Pascal VOC on two cores: 10 + 0.6 · (24 + 2173.5) = 1328 s of 6480
        (0.25, 1449, 0.6, False),  # on a GPU: of 45 s
        (1, 100, 0.9, True),  # 10 + 0.9 · 174 = 166.6 s of 180
        (1, 100, 1.0, False),  # 10 + 174 = 184 s
    ],
)
def test_auto_writes_it_within_5_percent_of_the_training_time(
    hours: float, images: int, seconds: float, makes: bool
) -> None:
    assert (reason_to_skip("auto", 3600 * hours, images, lambda: seconds) == "") is makes


def test_reason_contains_both_times_and_the_fix() -> None:
    assert reason_to_skip("auto", 3600, 100, lambda: 1.0) == (
        "it takes at least 184 s, and 5% of the training time is 180 s. Set _quantize=True to write it anyway"
    )


def test_short_job_does_not_time_an_image() -> None:
    assert "it takes at least 10 s, and 5% of the training time is 9 s" in reason_to_skip("auto", 180, 1, never)
