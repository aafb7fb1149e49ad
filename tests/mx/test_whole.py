"""Validation on whole images: every pixel counts, and what cannot be scored is never passed over in silence."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np
import pytest
from PIL import Image

from container.cluster.hosts import Hosts
from container.data.loader import Loader
from container.data.samples import open_samples
from container.environment import Environment
from container.errors import ClientError
from container.hyperparameters import Hyperparameters, load
from container.mx.inference.evaluation import MXNetEvaluator
from container.mx.trainer import Trainer
from container.training.scoring.validation import validate_full_images
from tests.conftest import JobFactory
from tests.mx import tiny


def opened(root: Path) -> tuple[Trainer, Loader, Hyperparameters]:
    environment = Environment.read(root)
    job = load(environment.hyperparameters)
    trainer = tiny.tiny_trainer(tiny.cpus(2), job)
    tiny.train(trainer, [tiny.batch(4)], rate=0.1)
    trainer.synchronize_replicas()
    return trainer, Loader(open_samples(environment, "validation", job), job, threading.Event()), job


@pytest.fixture
def root(make_job: JobFactory) -> Path:
    """A job whose three validation images are of three sizes."""
    made = make_job(num_classes="3", validation=3, _ema="0.5")
    data = made / "input/data"
    for number, size in enumerate([(40, 48), (33, 70), (16, 24)]):
        stem = f"validation-{number}"
        for path in (data / f"validation/{stem}.jpg", data / f"validation_annotation/{stem}.png"):
            Image.open(path).resize(size[::-1], Image.Resampling.NEAREST).save(path)
    return made


def test_validation_covers_every_labeled_pixel(root: Path) -> None:
    data = root / "input/data"
    images = {path.stem: np.asarray(Image.open(path)) for path in (data / "validation").iterdir()}
    labels = {path.stem: np.asarray(Image.open(path)) for path in (data / "validation_annotation").iterdir()}
    trainer, loader, job = opened(root)
    seen: dict[str, Any] = {}
    stop = threading.Event()
    found = validate_full_images(
        trainer, loader, job, Hosts(stop), lambda picture, mask: seen.update({picture.name: mask})
    )
    assert found is not None
    expected = np.zeros((3, 3), np.int64)
    for stem, image in images.items():
        with trainer.evaluated_weights():  # by the averages
            logits = trainer.network(mx.nd.array(image[None], dtype="uint8", ctx=trainer.devices[0])).asnumpy()[0]
        mask = logits.argmax(axis=0)
        (name,) = [name for name in seen if Path(name).stem == stem]
        assert np.array_equal(seen[name], mask)
        valid = labels[stem] != 255
        np.add.at(expected, (labels[stem][valid], mask[valid]), 1)
    assert np.array_equal(found[0].counts, expected) and found[1] == 3


def test_corrupt_image_counts_as_bad_record(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    (root / "input/data/validation/validation-1.jpg").write_bytes(b"no image")
    trainer, loader, job = opened(root)
    with pytest.raises(ClientError, match=r"validation-1\.jpg.*neither a JPEG nor a PNG image"):
        validate_full_images(trainer, loader, job, Hosts(threading.Event()))
    job = load({**Environment.read(root).hyperparameters, "_max_bad_records": 1})
    with caplog.at_level(logging.WARNING):
        found = validate_full_images(trainer, loader, job, Hosts(threading.Event()))
    assert found is not None and found[1] == 2
    assert "The validation covers 2 of 3 images." in caplog.text


def test_too_large_images_are_listed_and_no_image_at_all_is_an_error(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    trainer, loader, job = opened(root)
    limit = 2000
    monkeypatch.setattr(MXNetEvaluator, "check_size", lambda self, pixels: None if pixels <= limit else "do not fit")
    with caplog.at_level(logging.WARNING):
        found = validate_full_images(trainer, loader, job, Hosts(threading.Event()))
    assert found is not None and found[1] == 2
    assert "validation-1.jpg: 70×33 pixels do not fit" in caplog.text
    limit = 100
    with pytest.raises(
        ClientError, match=r"no image of channel validation could be evaluated at full resolution \(.*_validation=crop"
    ):
        validate_full_images(trainer, loader, job, Hosts(threading.Event()))


def test_stopped_validation_returns_none(root: Path) -> None:
    trainer, loader, job = opened(root)
    stop = threading.Event()
    assert validate_full_images(trainer, loader, job, Hosts(stop), lambda picture, mask: stop.set()) is None
    assert validate_full_images(trainer, loader, job, Hosts(stop)) is None
