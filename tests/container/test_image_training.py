"""`docker run IMAGE train` as the platform does it: mounts, streams, signals, failures."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from container.metrics import METRIC_DEFINITIONS
from tests.conftest import PROGRAM, JobFactory
from tests.container.conftest import Image, assert_mask, mounted

ARTIFACTS = {"hyperparams.json", "model_best.params", "model_algo-1", "model.onnx", "check.json"}


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_file_job_needs_its_mount_and_nothing_else(trained: Path) -> None:
    assert names(trained / "model") >= ARTIFACTS
    reports = {"audit.json", "metrics.csv", "report.html", "report.json", "statistics.json"}
    assert names(trained / "output/data") == reports
    assert not (trained / "output/failure").exists()
    log = (trained / "log").read_text()
    assert all(re.search(pattern, log) for pattern in METRIC_DEFINITIONS.values()), log


@pytest.mark.parametrize("algorithm", ["psp", "deeplab"])
def test_a_streamed_job_trains_and_its_model_answers(
    image: Image, make_job: JobFactory, algorithm: str, photo: bytes
) -> None:
    root = make_job(train=3, validation=2, algorithm=algorithm)
    subprocess.run(
        [sys.executable, "-m", "local_test.convert", "directories", str(root / "input/data")], check=True, cwd=PROGRAM
    )
    feeder = [sys.executable, "-m", "local_test.pipe_feeder", "--root", str(root)]
    channels = [f"--channel={channel}={root}/input/{channel}.manifest" for channel in ("train", "validation")]
    job = image.command("train", options=("--rm", "--network", "none", *mounted(root)))
    done = subprocess.run([*feeder, *channels, "--", *job], capture_output=True, text=True, cwd=PROGRAM, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert names(root / "model") >= ARTIFACTS
    with image.serving(root / "model") as server:
        server.wait_until_ready()
        answer = server.ask(photo)
        assert answer.status_code == 200, answer.text
        assert_mask(answer.content, classes=2)


def test_sigterm_reaches_the_first_process_and_leaves_the_weights(image: Image, make_job: JobFactory) -> None:
    root = make_job(train=2, validation=1, epochs="1000")
    with image.started("train", options=mounted(root)) as job:
        job.wait_for("Serializing model to /opt/ml/model/model_best.params")
        assert job.terminate() == 0
        assert "stopping on request" in job.logs()
    assert names(root / "model") >= {"hyperparams.json", "model_best.params", "model_algo-1"}
    assert not (root / "output/failure").exists()


def test_a_failure_is_written_and_the_exit_code_says_so(image: Image, make_job: JobFactory) -> None:
    root = make_job(algorithm="unet")
    done = image.run("train", options=mounted(root))
    assert done.returncode == 1
    reason = (root / "output/failure").read_text()
    assert reason.startswith("ClientError: ")
    assert "algorithm must be fcn, psp, deeplab or fastscnn, not 'unet'" in reason


def test_without_a_command_the_image_trains(image: Image, tmp_path: Path) -> None:
    done = image.run(options=mounted(tmp_path))
    assert done.returncode == 1
    assert (
        (tmp_path / "output/failure")
        .read_text()
        .startswith("ClientError: /opt/ml/input/config/hyperparameters.json does not exist")
    )


def test_a_job_writes_to_its_mounts_only(image: Image, make_job: JobFactory) -> None:
    root = make_job(train=2, validation=1)
    done = image.run("train", options=("--read-only", "--tmpfs", "/tmp", *mounted(root)))
    assert done.returncode == 0, done.stdout + done.stderr
