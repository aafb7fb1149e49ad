"""What a job shows while it runs."""

from __future__ import annotations

import csv
import json
import logging
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from container.data.loader import Loader
from container.data.samples import open_samples
from container.environment import Environment
from container.hyperparameters import load
from container.training.report import reporter as module
from container.training.report.example_images import ExampleImages
from container.training.report.reporter import Reporter
from tests.conftest import JobFactory

CONFUSION = np.array([[30, 10], [0, 60]])


def begin(root: Path) -> Reporter:
    environment = Environment.read(root)
    job = load(environment.hyperparameters)
    stop = threading.Event()
    channels = ("train", "validation")
    loaders = {channel: Loader(open_samples(environment, channel, job), job, stop) for channel in channels}
    return Reporter(environment, job, loaders, "cpu(0)")


def epoch(number: int, miou: float = 0.5) -> dict[str, Any]:
    return {"epoch": number, "train_loss": 0.7, "mIOU": miou, "pixel_accuracy": 0.9, "train_seconds": 2.0}


def watch(reporter: Reporter, names: list[str]) -> None:
    count = len(names)
    labels = np.zeros((count, 8, 8), np.uint8)
    labels[:, :4] = 1
    predictions = labels.copy()
    predictions[:, 0, 0] = 0
    reporter.watch(names, np.full((count, 8, 8, 3), 90, np.uint8), labels, predictions)


def test_after_an_epoch_everything_is_there_and_says_the_same(make_job: JobFactory) -> None:
    root = make_job(epochs="3", _class_names='["ground", "thing"]')
    reporter = begin(root)
    watch(reporter, ["a.jpg", "b.jpg"])
    reporter.epoch([epoch(0, 0.8125)], CONFUSION, 2)
    reporter.wait()  # the job goes on, or is killed
    data = root / "output/data"
    page = (data / "report.html").read_text()
    # IoU 30/40 and 60/70, whose mean is 0.804
    assert "mIOU 0.804 on 2 validation crops of 32×32 in epoch 0" in page
    assert "training: 1 of 3 epochs are complete" in page and "a.jpg" in page
    assert "ground</th>" in page and "class 0" not in page
    assert json.loads((data / "report.json").read_text())["epochs"] == [epoch(0, 0.8125)]
    (row,) = csv.DictReader((data / "metrics.csv").read_text().splitlines())
    assert (float(row["mIOU"]), float(row["train_loss"]), float(row["train_seconds"])) == (0.8125, 0.7, 2.0)
    assert not (root / "output/tensorboard").exists()
    reporter.end([epoch(0)], "finished")


def test_an_epoch_between_two_validations_is_shown_without_a_score(make_job: JobFactory) -> None:
    root = make_job(epochs="3", _tensorboard="True", _validation="full", _validation_interval="2")
    unscored = {"epoch": 0, "train_loss": 0.9, "train_seconds": 2.0}
    reporter = begin(root)
    reporter.epoch([unscored], None, 0)
    reporter.wait()
    data = root / "output/data"
    assert "No epoch is complete, so there are no metrics" in (data / "report.html").read_text()
    watch(reporter, ["a.jpg"])
    reporter.epoch([unscored, epoch(1, 0.8)], CONFUSION, 1)
    reporter.end([unscored, epoch(1, 0.8), {**unscored, "epoch": 2}], "finished")
    assert "mIOU 0.804 on 1 full validation images in epoch 1" in (data / "report.html").read_text()
    assert json.loads((data / "report.json").read_text())["epochs"] == [unscored, epoch(1, 0.8)]
    rows = list(csv.DictReader((data / "metrics.csv").read_text().splitlines()))
    assert [row["mIOU"] for row in rows] == ["", "0.8", ""]


def test_a_worse_epoch_does_not_take_the_best_ones_place(make_job: JobFactory) -> None:
    root = make_job(epochs="3")
    reporter = begin(root)
    watch(reporter, ["best.jpg"])
    reporter.epoch([epoch(0, 0.8)], CONFUSION, 1)
    watch(reporter, ["worse.jpg"])
    reporter.epoch([epoch(0, 0.8), epoch(1, 0.4)], CONFUSION[::-1], 1)
    reporter.end([epoch(0, 0.8), epoch(1, 0.4)], "stopped on request")
    page = (root / "output/data/report.html").read_text()
    assert "in epoch 0" in page and "best.jpg" in page and "worse.jpg" not in page
    assert "stopped on request: 2 of 3 epochs are complete" in page


def test_whole_images_take_the_crops_place_and_products_that_failed_are_named(make_job: JobFactory) -> None:
    root = make_job()
    reporter = begin(root)
    watch(reporter, ["crop.jpg"])
    reporter.epoch([epoch(0)], CONFUSION, 1)
    reporter.wait()
    (root / "output/data/report.json").write_text(json.dumps({"failed": {"int8": "no room for it"}}))
    reporter.finish(ExampleImages(2).scored("7 whole validation images", CONFUSION, 7, "Not every image was scored."))
    reporter.end([epoch(0)], "finished")
    page = (root / "output/data/report.html").read_text()
    assert "mIOU 0.804 on 7 whole validation images" in page and "crop.jpg" not in page
    assert "Not every image was scored." in page and "int8 is missing: no room for it" in page


@pytest.mark.parametrize("how", ["hyperparameter", "directory"])
def test_tensorboard_sees_iterations_epochs_and_the_worst_images(make_job: JobFactory, how: str) -> None:
    root = make_job(_tensorboard="True" if how == "hyperparameter" else None)
    folder = root / "output/tensorboard"
    if how == "directory":
        folder.mkdir(parents=True)
    reporter = begin(root)
    for step in (20, 40):
        reporter.iteration(step, {"loss": 1 / step, "learning_rate": 0.5})
    watch(reporter, [f"{number}.jpg" for number in range(30)])
    reporter.epoch([epoch(0, 0.25)], CONFUSION, 30)
    reporter.end([epoch(0, 0.25)], "finished")
    found = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0}).Reload()
    assert [(event.step, event.value) for event in found.Scalars("iteration/loss")] == [
        (20, pytest.approx(0.05)),
        (40, pytest.approx(0.025)),
    ]
    assert [(event.step, event.value) for event in found.Scalars("epoch/mIOU")] == [(0, 0.25)]
    assert found.Tags()["images"] == [f"worst/{number}" for number in range(1, 7)]


def test_failed_report_is_logged_once_and_the_job_continues(
    make_job: JobFactory, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(content: object) -> str:
        raise ValueError("a defect of ours")

    monkeypatch.setattr(module, "render_page", fail)
    reporter = begin(make_job())
    with caplog.at_level(logging.ERROR):
        reporter.epoch([epoch(0)], CONFUSION, 1)
        reporter.epoch([epoch(0), epoch(1)], CONFUSION, 1)
        reporter.end([epoch(0), epoch(1)], "finished")
    assert caplog.text.count("The report could not be written. The job continues without it: a defect of ours") == 1
