"""Full-resolution evaluation: which images it covers, and its metrics."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from container.data.loader import Loader
from container.data.samples import open_samples
from container.environment import Environment
from container.errors import JobCancelledError, PlatformError
from container.hyperparameters import load
from container.training.scoring.evaluation import EvaluationResult, Prediction, evaluate
from tests.conftest import JobFactory

LABELLED = 39 * 48  # pixels of a picture that count: its first line is ignored


def open_loader(root: Path, **changes: object) -> Loader:
    environment = Environment.read(root)
    job = load({**environment.hyperparameters, **changes})
    return Loader(open_samples(environment, "validation", job), job, threading.Event())


class Fake:
    """An evaluator that predicts class 0 everywhere, and records the batch sizes."""

    name, prefetch = "fake", 1

    def __init__(self, batch_size: int = 1, models: int = 1, largest: int = 10**9) -> None:
        self.batch_size = batch_size
        self.models = models
        self.largest = largest
        self.asked: list[int] = []

    def check_size(self, pixels: int) -> str | None:
        return None if pixels <= self.largest else "do not fit"

    def predict(self, images: list[np.ndarray]) -> list[Prediction]:
        self.asked.append(len(images))
        return [tuple(np.full(image.shape[:2], model, np.uint8) for model in range(self.models)) for image in images]


def run(root: Path, evaluator: Fake, until: threading.Event | None = None) -> EvaluationResult:
    return evaluate(open_loader(root), evaluator, 2, until or threading.Event())


def stems(found: EvaluationResult) -> list[str]:
    return [Path(name).stem for name in found.evaluated]


def test_metrics_cover_every_labeled_pixel(make_job: JobFactory) -> None:
    root = make_job(validation=5)
    evaluator = Fake(batch_size=2)
    figures = run(root, evaluator).describe()
    squares = sum(
        int((np.asarray(Image.open(path))[1:] == 1).sum())
        for path in (root / "input/data/validation_annotation").iterdir()
    )
    assert evaluator.asked == [2, 2, 1]
    assert (figures["images"], figures["of"], figures["complete"]) == (5, 5, True)
    assert figures["confusion"] == [[5 * LABELLED - squares, 0], [squares, 0]]
    assert figures["pixel_accuracy"] == pytest.approx(1 - squares / (5 * LABELLED))
    assert figures["mIOU"] == pytest.approx((1 - squares / (5 * LABELLED)) / 2)
    assert "skipped" not in figures and "scored" not in figures


def test_seed_determines_the_order_of_images(make_job: JobFactory) -> None:
    root = make_job(validation=12)
    first, again = stems(run(root, Fake())), stems(run(root, Fake()))
    assert first == again and first != sorted(first)
    other = stems(evaluate(open_loader(root, _seed=8), Fake(), 2, threading.Event()))
    assert other != first and sorted(other) == sorted(first)


def test_skipped_images_are_listed_with_the_reason(make_job: JobFactory, caplog: pytest.LogCaptureFixture) -> None:
    root = make_job(validation=4)
    data = root / "input/data"
    (data / "validation/validation-1.jpg").write_bytes(b"no image")
    Image.new("RGB", (80, 70)).save(data / "validation/validation-2.jpg")
    Image.new("L", (80, 70)).save(data / "validation_annotation/validation-2.png")
    loader = open_loader(root)
    (data / "validation_annotation/validation-3.png").unlink()
    figures = evaluate(loader, Fake(largest=40 * 48), 2, threading.Event()).describe()
    assert (figures["images"], figures["of"], figures["complete"]) == (1, 4, False)
    assert sum(map(sum, figures["confusion"])) == LABELLED
    skipped = {Path(entry["image"]).stem: entry["reason"] for entry in figures["skipped"]}
    assert skipped.pop("validation-1").startswith("this is neither a JPEG nor a PNG image, but text")
    assert skipped == {
        "validation-2": "80×70 pixels do not fit",
        "validation-3": f"{data}/validation_annotation/validation-3.png cannot be read: No such file or directory",
    }
    assert f"Skipped in the evaluation: {data}/validation/validation-2.jpg: 80×70 pixels do not fit" in caplog.text


def test_image_for_which_memory_runs_out_is_skipped(make_job: JobFactory) -> None:
    class Failing(Fake):
        def predict(self, images: list[np.ndarray]) -> list[Prediction]:
            found = super().predict(images)
            return [MemoryError("memory ran out")] if len(self.asked) == 2 else found

    found = run(make_job(validation=3), Failing())
    assert len(found.evaluated) == 2 and not found.complete
    assert [skipped.reason for skipped in found.skipped] == ["memory ran out during inference"]


@pytest.mark.parametrize("by", ["the event", "the evaluator"])
def test_stopped_evaluation_is_a_random_sample(make_job: JobFactory, by: str) -> None:
    until = threading.Event()

    class Ending(Fake):
        def predict(self, images: list[np.ndarray]) -> list[Prediction]:
            if len(self.asked) == 3 and by == "the evaluator":
                raise JobCancelledError
            found = super().predict(images)
            if len(self.asked) == 3 and by == "the event":
                until.set()
            return found

    root = make_job(validation=9)
    whole = stems(run(root, Fake()))
    found = run(root, Ending(), until)
    assert found.cancelled and not found.complete
    assert stems(found) == whole[:3]  # the first of a random order
    assert (found.coverage()["images"], found.coverage()["of"]) == (3, 9)
    assert sum(map(sum, found.describe()["confusion"])) == 3 * LABELLED


def test_deadline_during_the_last_image_has_no_effect(make_job: JobFactory) -> None:
    until = threading.Event()

    class Late(Fake):
        def predict(self, images: list[np.ndarray]) -> list[Prediction]:
            if len(self.asked) == 2:
                until.set()
            return super().predict(images)

    assert run(make_job(validation=3), Late(), until).complete


def test_evaluation_without_images_has_no_metrics(make_job: JobFactory) -> None:
    until = threading.Event()
    until.set()
    figures = run(make_job(validation=2), Fake(), until).describe()
    assert (figures["images"], figures["mIOU"], figures["pixel_accuracy"], figures["iou"]) == (
        0,
        None,
        None,
        [None] * 2,
    )


def test_error_of_a_stream_ends_the_evaluation_with_the_reason(
    make_job: JobFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    loader = open_loader(make_job(validation=3))
    whole = loader._samples.epoch

    def broken(*arguments: object) -> object:
        yield from list(whole(*arguments))[:2]  # type: ignore[arg-type]
        raise PlatformError("channel validation: nothing came")

    monkeypatch.setattr(loader._samples, "epoch", broken)
    figures = evaluate(loader, Fake(), 2, threading.Event()).describe()
    assert (figures["images"], figures["complete"]) == (2, False)
    assert figures["reason"] == "channel validation: nothing came" and len(figures["scored"]) == 2


def test_stream_that_ends_at_the_deadline_is_a_sample(make_job: JobFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    loader, until = open_loader(make_job(validation=3)), threading.Event()
    monkeypatch.setattr(loader._samples, "listed", lambda: None)  # as a stream does
    whole = loader._samples.epoch

    def ended(*arguments: object) -> object:
        yield from list(whole(*arguments))[:2]  # type: ignore[arg-type]
        until.set()  # and the reader ends without a word

    class Ready(Fake):
        prefetch = 0

    monkeypatch.setattr(loader._samples, "epoch", ended)
    found = evaluate(loader, Ready(), 2, until)
    assert found.cancelled and not found.complete
    assert (found.coverage()["images"], found.coverage()["of"]) == (2, None)


def test_two_models_are_compared_on_the_same_pixels(make_job: JobFactory) -> None:
    found = run(make_job(validation=2), Fake(models=2))
    assert (found.agreeing, found.pixels) == (0, 2 * 40 * 48)
    assert found.confusions[1].counts[:, 0].sum() == 0 and found.confusions[1].counts.sum() == 2 * LABELLED
