"""What is settled before the framework is imported: the hyperparameters, and the samples when nobody counted them."""

from __future__ import annotations

import json
import logging
import threading
from pathlib import Path
from typing import Any

import pytest

from container.environment import Environment
from container.errors import ClientError
from container.hyperparameters import Hyperparameters
from container.training import run
from container.training.inputs import JobInputs
from tests.conftest import JobFactory


def settled(root: Path, monkeypatch: pytest.MonkeyPatch) -> Hyperparameters:
    """Return the job with which training would begin."""
    jobs: list[Hyperparameters] = []

    def train(inputs: JobInputs, *others: Any) -> None:
        jobs.append(inputs.job)

    monkeypatch.setattr(run, "train", train)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    run.run(Environment.read(root), threading.Event())
    return jobs[0]


@pytest.mark.parametrize("mode", ["File", "FastFile", "file", None])
def test_files_are_counted_when_the_job_does_not_say_how_many(
    make_job: JobFactory, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, mode: str | None
) -> None:
    root = make_job(train=5, num_training_samples=None)
    if mode:
        channels = {path.name: {"TrainingInputMode": mode} for path in (root / "input/data").iterdir()}
        (root / "input/config/inputdataconfig.json").write_text(json.dumps(channels))
    with caplog.at_level(logging.INFO):
        job = settled(root, monkeypatch)
    assert job.num_training_samples == 5
    assert job.as_dict()["num_training_samples"] == 5  # what the archive's hyperparams.json will say
    assert caplog.messages.count("num_training_samples is not set: counted 5 training samples") == 1


def test_a_number_that_is_given_is_kept(
    make_job: JobFactory, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        assert settled(make_job(train=5, num_training_samples="7"), monkeypatch).num_training_samples == 7
    assert "counted" not in caplog.text


def test_a_pipe_needs_the_number(make_job: JobFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_job(num_training_samples=None, algorithm="unet")
    channel = {"TrainingInputMode": "Pipe", "RecordWrapperType": "RecordIO"}
    channels = {"train": channel, "validation": channel}
    (root / "input/config/inputdataconfig.json").write_text(json.dumps(channels))
    with pytest.raises(ClientError) as caught:
        settled(root, monkeypatch)
    assert str(caught.value) == (
        "2 hyperparameters are not valid: algorithm must be fcn, psp, deeplab or fastscnn, not 'unet'; "
        "num_training_samples is required in Pipe mode"
    )


def test_a_pipe_keeps_the_number_it_is_given(make_job: JobFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_job(num_training_samples="9")
    channel = {"TrainingInputMode": "Pipe", "RecordWrapperType": "RecordIO"}
    (root / "input/config/inputdataconfig.json").write_text(json.dumps({"train": channel, "validation": channel}))
    assert settled(root, monkeypatch).num_training_samples == 9
