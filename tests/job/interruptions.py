"""Jobs that are killed or stopped at some moment, started again, and compared with an undisturbed one."""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np

from tests.conftest import PROGRAM, job_factory
from tests.job.cluster import on_contexts, program

SIGTERM_BIT = 1 << (signal.SIGTERM - 1)
TIMES = ("_seconds", "_throughput")
SETTINGS = {"epochs": "2", "optimizer": "adam", "_checkpoint_minutes": "0.00001"}  # a checkpoint after every step


def lay_out(root: Path, **changes: Any) -> Path:
    """Lay out a job of two epochs whose batches do not divide its samples."""
    (root / "checkpoints").mkdir(parents=True, exist_ok=True)
    return job_factory(root)(train=5, validation=2, **{**SETTINGS, **changes})


def start(root: Path, *wrapper: str, devices: int = 1) -> subprocess.Popen[str]:
    """Start the job on one thread, and on so many CPU contexts: there, equal work gives equal weights."""
    train = [str(PROGRAM / "train")] if devices == 1 else ["-c", program(on_contexts(devices))]
    variables = {"SAGEMAKER_BASE_DIR": str(root), "OMP_NUM_THREADS": "1", "TRAINING_JOB_NAME": "job"}
    return subprocess.Popen(
        [*wrapper, sys.executable, *train],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **variables},
    )


def finish(process: subprocess.Popen[str]) -> str:
    """Wait for a job that must succeed; returns its log."""
    log, _ = process.communicate(timeout=300)
    assert process.returncode == 0, log
    return log


def run(root: Path, devices: int = 1) -> str:
    return finish(start(root, devices=devices))


def interrupt(process: subprocess.Popen[str], lines: int, seconds: float, number: int = signal.SIGKILL) -> str:
    """Send a signal so many seconds after so many lines of the log, unless the job has ended by then.

    Returns the log. Counted in lines, moments spread over all of a job's phases however fast the machine is.
    """
    assert process.stdout
    log = list(itertools.islice(process.stdout, lines))
    timer = threading.Timer(seconds, process.send_signal, (number,))
    timer.start()
    rest, _ = process.communicate(timeout=300)
    timer.cancel()
    return "".join(log) + rest


def interrupt_at(process: subprocess.Popen[str], text: str, number: int, within: float = 300) -> str:
    """Send a signal when the log says `text`; returns the log. The process must end `within` so many seconds then."""
    assert process.stdout
    log = ""
    for line in process.stdout:
        log += line
        if text in line:
            process.send_signal(number)
            break
    rest, _ = process.communicate(timeout=within)
    assert text in log, log
    return log + rest


def handler_installed(process: int) -> bool:
    """Whether the process of this id handles SIGTERM by now."""
    status = Path(f"/proc/{process}/status").read_text()
    return bool(int(status.split("SigCgt:")[1].split()[0], 16) & SIGTERM_BIT)


def forget_machine(root: Path) -> None:
    """Leave of a job what comes back on another machine: its input and its checkpoints."""
    for name in ("model", "output"):
        shutil.rmtree(root / name, ignore_errors=True)


def weights(root: Path, name: str = "model_algo-1") -> dict[str, np.ndarray]:
    return {key: array.asnumpy() for key, array in mx.nd.load(str(root / "model" / name)).items()}


def epochs(root: Path) -> list[dict[str, float]]:
    """Return what report.json says of the epochs, without how long they took."""
    content = json.loads((root / "output/data/report.json").read_text())["epochs"]
    return [{name: value for name, value in epoch.items() if not name.endswith(TIMES)} for epoch in content]


def differences(root: Path, undisturbed: Path) -> list[str]:
    """Name what differs from the undisturbed job's result: figures of epochs, weights."""
    found = [] if epochs(root) == epochs(undisturbed) else [f"epochs {epochs(root)} not {epochs(undisturbed)}"]
    for name in ("model_best.params", "model_algo-1"):
        ours, theirs = weights(root, name), weights(undisturbed, name)
        found += [f"{name}: {key}" for key in theirs if not np.array_equal(ours[key], theirs[key])]
    if not (root / "model/model.onnx").is_file():
        found.append("no model.onnx")
    return found


def told(log: str, *words: str) -> str:
    """The log's last line that holds one of `words`, without its prefix."""
    lines = [line.split("] ", 1)[-1] for line in log.splitlines() if not line.startswith("#metrics")]
    return next((line for line in reversed(lines) if not words or any(word in line for word in words)), "nothing")


def kill_once(root: Path, undisturbed: Path, seed: int) -> tuple[str, list[str]]:
    """Kill a job at a moment drawn from `seed`, start it again elsewhere; returns what happened and what differs."""
    chance = random.Random(seed)
    moments = len((undisturbed / "log").read_text().splitlines())
    lines, seconds = chance.randrange(moments), chance.uniform(0, 1.5)
    lay_out(root)
    process = start(root)
    log = interrupt(process, lines, seconds)
    assert process.returncode in (0, -signal.SIGKILL), log
    found = [f"{path.parent.name}/{path.name}" for path in (root / "checkpoints").rglob(".*")]  # half-written
    forget_machine(root)
    again = run(root)
    happened = f"{told(log)[:70]} {found} | {told(again, 'resuming', 'no whole')[:90]}"
    differing = differences(root, undisturbed)
    shutil.rmtree(root)
    return happened, differing
