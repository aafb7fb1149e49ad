"""The child that quantizes is gone as soon as it is no longer wanted, and its reason is told when it fails."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

import pytest

from container.errors import AlgorithmError, ClientError, JobCancelledError
from container.training.scoring.quantization import _run

SLEEP = "import os, pathlib, sys, time; pathlib.Path(sys.argv[1]).write_text(str(os.getpid())); time.sleep(600)"


def test_a_child_that_is_no_longer_wanted_is_killed(tmp_path: Path) -> None:
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
        ("MemoryError", AlgorithmError, "^the process that quantizes ended: MemoryError$"),
    ],
)
def test_a_child_that_fails_is_quoted(tmp_path: Path, line: str, kind: type[Exception], reason: str) -> None:
    program = f"import sys; print('a warning', file=sys.stderr); sys.exit({line!r})"
    with pytest.raises(kind, match=reason):
        _run([sys.executable, "-c", program], tmp_path / "errors", threading.Event())
