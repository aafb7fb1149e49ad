"""Log lines of a job that a small job does not show, and the configuration that a person can paste back."""

from __future__ import annotations

import ast
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from container.cluster.hosts import Hosts
from container.data.batches import Batch
from container.environment import Channel, Environment
from container.errors import ClientError
from container.hyperparameters import load
from container.training.metric_log import MetricLogger, load_hyperparameters, log_end

GIVEN: dict[str, Any] = {
    "num_classes": "3",
    "num_training_samples": "100",
    "lr_scheduler": "step",
    "lr_scheduler_step": "3,5",
    "learning_rate": "1e-05",
    "use_pretrained_model": False,
    "_class_names": '["sky", "stra\u00dfe", "\\"a\\""]',
    "_class_weights": [1, 0.5, 2],
    "_augmentation": {"scale": [0.5, 1.5]},
    "_window": 64,
    "_quantize": "auto",
    "_image_range": "0,1000",
}


def environment(root: Path, given: dict[str, Any], *channels: str) -> Environment:
    return Environment(root, given, {name: Channel(name, root) for name in channels}, "algo-1", ("algo-1",))


def final(caplog: pytest.LogCaptureFixture) -> str:
    (line,) = [line for line in caplog.messages if line.startswith("Final configuration: ")]
    return line.removeprefix("Final configuration: ")


def test_final_configuration_loads_as_the_same_job(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    job = load_hyperparameters(environment(tmp_path, GIVEN), False)
    pasted = json.loads(final(caplog))
    assert ast.literal_eval(final(caplog)) == pasted
    assert {type(value) for value in pasted.values()} == {str}
    assert pasted["use_pretrained_model"] == "False" and pasted["learning_rate"] == "1e-05"
    assert json.loads(pasted["_class_names"]) == {"0": "sky", "1": "stra\u00dfe", "2": '"a"'}
    assert load(pasted) == job
    assert final(caplog).isascii()


def test_samples_that_are_counted_later_are_not_in_the_configuration(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    job = load_hyperparameters(environment(tmp_path, {"num_classes": "3"}), False)
    assert "num_training_samples" not in json.loads(final(caplog))
    assert load(json.loads(final(caplog))) == job


def test_configuration_is_logged_before_it_is_rejected(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    with pytest.raises(ClientError):
        load_hyperparameters(environment(tmp_path, {"num_classes": "300"}), False)
    path = tmp_path / "input/config/hyperparameters.json"
    assert caplog.messages[-1] == f'Merging with provided configuration from {path}: {{"num_classes": "300"}}'


@pytest.mark.parametrize("checkpoints", [False, True])
def test_disabled_checkpoints_are_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture, checkpoints: bool) -> None:
    caplog.set_level("INFO")
    if checkpoints:
        (tmp_path / "checkpoints").mkdir()
    load_hyperparameters(environment(tmp_path, {"num_classes": "3"}), False)
    assert ("Checkpoint loading and saving are disabled." in caplog.messages) is not checkpoints


@pytest.mark.parametrize(("channels", "lines"), [([], ["Test data is not provided."]), (["test"], [])])
def test_missing_test_data_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, channels: list[str], lines: list[str]
) -> None:
    caplog.set_level("INFO")
    job = environment(tmp_path, {}, *channels)
    log_end(job, 2, job.started + 1.5)
    assert caplog.messages == lines


def test_closing_metrics_are_milliseconds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = environment(tmp_path, {})
    log_end(job, 2, job.started + 1.5)
    content = json.loads(capsys.readouterr().out.removeprefix("#metrics "))
    assert content["Metrics"]["setuptime"]["sum"] == pytest.approx(1500, abs=0.01)
    assert content["Metrics"]["totaltime"]["sum"] == pytest.approx(
        1000 * (content["EndTime"] - content["StartTime"]), abs=0.01
    )


def test_validation_notices_come_after_the_batches(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    logger = MetricLogger(Hosts(threading.Event(), ("algo-1",), "algo-1"))
    batches = [Batch(np.zeros((2, 8, 8, 3), np.uint8), np.zeros((2, 8, 8), np.uint8)) for _ in range(5)]
    counts = [len(caplog.messages) for _ in logger.notices(3, 2, batches)]
    assert counts == [0, 0, 1, 1, 2]
    assert [line.split(" speed: ")[0] for line in caplog.messages] == [
        "#progress_notice. epoch: 3, iterations: 2",
        "#progress_notice. epoch: 3, iterations: 4",
    ]
    assert all(line.endswith(" samples/sec") for line in caplog.messages)
