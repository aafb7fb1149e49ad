"""Whole jobs by the `train` command, on GPUs or without, and what their logs say."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from container.metrics import METRIC_DEFINITIONS
from tests.conftest import PROGRAM

PATIENCE = 900  # seconds until what should happen has failed to


@dataclasses.dataclass(frozen=True)
class Ended:
    """A job that has ended: exit code and log."""

    root: Path
    code: int
    log: str

    @property
    def losses(self) -> list[float]:
        return [float(value) for value in re.findall(METRIC_DEFINITIONS["train:loss"], self.log)]

    @property
    def report(self) -> dict[str, Any]:
        return dict(json.loads((self.root / "output/data/report.json").read_text()))


def run_job(root: Path, kill_at: str | None = None, **variables: str) -> Ended:
    """Run the job below `root`; with `kill_at` it is killed (-9) as soon as its log says so."""
    process = subprocess.Popen(
        [sys.executable, str(PROGRAM / "train")],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd="/",
        env={**os.environ, "SAGEMAKER_BASE_DIR": str(root), **variables},
    )
    deadline = threading.Timer(PATIENCE, process.kill)
    deadline.start()
    log = ""
    try:
        assert process.stdout
        for line in process.stdout:
            log += line
            if kill_at and kill_at in line:
                process.send_signal(signal.SIGKILL)
                break
    finally:
        process.stdout.read()  # type: ignore[union-attr]
        code = process.wait()
        deadline.cancel()
    assert (code == -signal.SIGKILL) == (kill_at is not None), log
    return Ended(root, code, log)


def resumed(root: Path, epochs_done: int, epochs: int, **variables: str) -> tuple[Ended, Ended]:
    """Kill a job with checkpoints after some epochs, and start it again; returns both runs."""
    (root / "checkpoints").mkdir(exist_ok=True)
    killed = run_job(root, kill_at=f"completed {100 * epochs_done // epochs} % of epochs", **variables)
    return killed, run_job(root, **variables)
