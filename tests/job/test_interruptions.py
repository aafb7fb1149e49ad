"""Real jobs, killed and stopped: whatever happens, the second start ends with the undisturbed job's model.

INTERRUPTIONS=20 kills at 20 moments instead of 2, and stops in every phase.
"""

from __future__ import annotations

import functools
import os
import random
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import mxnet as mx
import pytest

from container.mx.networks.segmentation import SegmentationNetwork, load_weights
from tests.conftest import wait_until
from tests.job.interruptions import (
    differences,
    finish,
    forget_machine,
    handler_installed,
    interrupt_at,
    kill_once,
    lay_out,
    run,
    start,
)

KILLS = int(os.environ.get("INTERRUPTIONS", "2"))
PHASES = [  # what the log says when it begins, in the order of the job
    "#label_map validation",
    "Number of GPUs being used",
    "LRScheduler setup",
    "checkpoints/0-1 written",
    "epoch: 0, train loss",
    "epoch: 0, validation mIOU",
    "checkpoints/1-0 written",
    "checkpoints/1-3 written",
    "completed 100 %",
]
STOPPED = PHASES if KILLS > 2 else [PHASES[3]]
NOTHING = "stopped on request before anything was trained: there is no model"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("undisturbed")
    lay_out(root)
    (root / "log").write_text(run(root))
    yield root
    shutil.rmtree(root)


@pytest.mark.parametrize("seed", range(KILLS))
def test_a_killed_job_ends_with_the_undisturbed_ones_model(tmp_path: Path, undisturbed: Path, seed: int) -> None:
    happened, found = kill_once(tmp_path / "job", undisturbed, seed)
    print(happened)
    assert found == [], happened


@pytest.mark.parametrize("phase", STOPPED)
def test_a_stopped_job_leaves_a_model_and_goes_on(tmp_path: Path, undisturbed: Path, phase: str) -> None:
    root = lay_out(tmp_path / "job")
    process = start(root)
    log = interrupt_at(process, phase, signal.SIGTERM)
    assert process.returncode == 0, log
    if PHASES.index(phase) < 3 and NOTHING in log:
        assert not list((root / "model").glob("*"))
    else:
        load_weights(SegmentationNetwork("fcn", "resnet-18", 2), root / "model/model_best.params", [mx.cpu()])
        assert (root / "model/hyperparams.json").is_file()
    forget_machine(root)
    run(root)
    assert differences(root, undisturbed) == []
    shutil.rmtree(root)


def test_a_killed_job_on_two_devices_goes_on_as_one_network(tmp_path: Path) -> None:
    settings = {"_ema": "0.9", "_report_minutes": "0", "_quantize": "False"}
    undisturbed = lay_out(tmp_path / "undisturbed", **settings)
    run(undisturbed, devices=2)
    root = lay_out(tmp_path / "job", **settings)
    interrupt_at(start(root, devices=2), "checkpoints/1-1 written", signal.SIGKILL)
    forget_machine(root)
    assert "resuming from" in run(root, devices=2)
    assert differences(root, undisturbed) == []


@pytest.mark.parametrize("first_process", [False, True], ids=["a process", "process 1"])
def test_sigterm_is_heard_from_the_first_line_on(tmp_path: Path, first_process: bool) -> None:
    """Once Python runs the program's first line, and at moments of the third of a second in which it imports."""
    wrapper = ["unshare", "--pid", "--fork", "--kill-child"] if first_process else []
    if first_process and subprocess.run([*wrapper, "true"], capture_output=True).returncode:
        pytest.skip("only root can make a process the first of its namespace")
    root = lay_out(tmp_path)
    for seconds in (0.0, random.Random(1).uniform(0, 0.3), random.Random(2).uniform(0, 0.3)):
        process = start(root, *wrapper)
        target = only_child(process.pid) if first_process else process.pid
        wait_until(functools.partial(handler_installed, target), 60)
        threading.Event().wait(seconds)
        os.kill(target, signal.SIGTERM)
        assert NOTHING in finish(process)
        assert not (root / "model").exists()


def only_child(parent: int) -> int:
    children = Path(f"/proc/{parent}/task/{parent}/children")
    wait_until(lambda: bool(children.read_text().split()), 60)
    return int(children.read_text())
