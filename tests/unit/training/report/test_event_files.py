"""TensorBoard's event files, read back by TensorBoard's own reader."""

from __future__ import annotations

import io
import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from container.artifact.classes import ClassEntry
from container.training.report.content import ExampleImage
from container.training.report.event_files import EventFiles


def read(folder: Path) -> EventAccumulator:
    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0})
    return accumulator.Reload()


def test_figures_come_back_by_tag_and_step(tmp_path: Path) -> None:
    files = EventFiles(tmp_path / "new" / "tensorboard")
    for step in range(3):
        files.write_metrics(step, {"epoch/mIOU": 0.25 * step, "epoch/train_loss": None})
    found = read(tmp_path / "new" / "tensorboard")  # while the job runs
    assert found.Tags()["scalars"] == ["epoch/mIOU"]
    assert [(event.step, event.value) for event in found.Scalars("epoch/mIOU")] == [(0, 0.0), (1, 0.25), (2, 0.5)]
    files.close()


def test_examples_come_back_as_strips(tmp_path: Path) -> None:
    labels = np.array([[0, 1], [1, 255]], np.uint8)
    photograph = np.full((2, 2, 3), 77, np.uint8)
    errors = np.array([[0, 1], [2, 3]], np.uint8)
    example = ExampleImage("a.jpg", 0.5, 0.5, photograph, labels, labels[::-1], errors)
    files = EventFiles(tmp_path)
    files.write_examples(7, "worst", [example, example], {1: ClassEntry("car", (10, 20, 30))})
    files.close()
    found = read(tmp_path)
    assert found.Tags()["images"] == ["worst/1", "worst/2"]
    (image,) = found.Images("worst/2")
    assert (image.step, image.width, image.height) == (7, 8, 2)
    strip = np.asarray(Image.open(io.BytesIO(image.encoded_image_string)))
    assert strip[0, 0].tolist() == [77, 77, 77]
    assert strip[0, 3].tolist() == [10, 20, 30]  # class 1 of the truth, in its own color


def test_nothing_is_made_before_there_is_something_to_write(tmp_path: Path) -> None:
    files = EventFiles(tmp_path / "tensorboard")
    files.write_metrics(0, {"epoch/mIOU": None})
    files.close()
    assert not (tmp_path / "tensorboard").exists()


def test_disk_error_is_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("no directory")
    files = EventFiles(tmp_path / "file")
    with caplog.at_level(logging.ERROR):
        for step in range(3):
            files.write_metrics(step, {"epoch/mIOU": 0.5})
        files.close()
    assert len(caplog.records) == 1 and "cannot be written. It has no more events" in caplog.text
