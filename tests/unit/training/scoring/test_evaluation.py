"""Scores over whole images: which pictures they are of, and what they count."""

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
from container.training.scoring.evaluation import EncodedResponse, EvaluationResult, score
from tests.conftest import JobFactory

LABELLED = 39 * 48  # pixels of a picture that count: its first line is ignored


def open_loader(root: Path, **changes: object) -> Loader:
    environment = Environment.read(root)
    job = load({**environment.hyperparameters, **changes})
    return Loader(open_samples(environment, "validation", job), job, threading.Event())


class Fake:
    """A scorer that says class 0 everywhere, and keeps what it was asked."""

    name, ahead = "fake", 1

    def __init__(self, at_once: int = 1, models: int = 1, largest: int = 10**9) -> None:
        self.at_once = at_once
        self.models = models
        self.largest = largest
        self.asked: list[int] = []

    def admit(self, pixels: int) -> str | None:
        return None if pixels <= self.largest else "do not fit"

    def answers(self, images: list[np.ndarray]) -> list[EncodedResponse]:
        self.asked.append(len(images))
        return [tuple(np.full(image.shape[:2], model, np.uint8) for model in range(self.models)) for image in images]


def run(root: Path, scorer: Fake, until: threading.Event | None = None) -> EvaluationResult:
    return score(open_loader(root), scorer, 2, until or threading.Event())


def stems(found: EvaluationResult) -> list[str]:
    return [Path(name).stem for name in found.scored]


def test_every_labeled_pixel_of_every_picture_counts(make_job: JobFactory) -> None:
    root = make_job(validation=5)
    scorer = Fake(at_once=2)
    figures = run(root, scorer).figures()
    squares = sum(
        int((np.asarray(Image.open(path))[1:] == 1).sum())
        for path in (root / "input/data/validation_annotation").iterdir()
    )
    assert scorer.asked == [2, 2, 1]
    assert (figures["images"], figures["of"], figures["complete"]) == (5, 5, True)
    assert figures["confusion"] == [[5 * LABELLED - squares, 0], [squares, 0]]
    assert figures["pixel_accuracy"] == pytest.approx(1 - squares / (5 * LABELLED))
    assert figures["mIOU"] == pytest.approx((1 - squares / (5 * LABELLED)) / 2)
    assert "skipped" not in figures and "scored" not in figures


def test_pictures_come_in_an_order_that_the_seed_decides(make_job: JobFactory) -> None:
    root = make_job(validation=12)
    first, again = stems(run(root, Fake())), stems(run(root, Fake()))
    assert first == again and first != sorted(first)
    other = stems(score(open_loader(root, _seed=8), Fake(), 2, threading.Event()))
    assert other != first and sorted(other) == sorted(first)


def test_what_cannot_be_scored_is_named(make_job: JobFactory, caplog: pytest.LogCaptureFixture) -> None:
    root = make_job(validation=4)
    data = root / "input/data"
    (data / "validation/validation-1.jpg").write_bytes(b"no image")
    Image.new("RGB", (80, 70)).save(data / "validation/validation-2.jpg")
    Image.new("L", (80, 70)).save(data / "validation_annotation/validation-2.png")
    loader = open_loader(root)
    (data / "validation_annotation/validation-3.png").unlink()
    figures = score(loader, Fake(largest=40 * 48), 2, threading.Event()).figures()
    assert (figures["images"], figures["of"], figures["complete"]) == (1, 4, False)
    assert sum(map(sum, figures["confusion"])) == LABELLED
    skipped = {Path(entry["image"]).stem: entry["reason"] for entry in figures["skipped"]}
    assert skipped.pop("validation-1").startswith("this is neither a JPEG nor a PNG image, but text")
    assert skipped == {
        "validation-2": "80×70 pixels do not fit",
        "validation-3": f"{data}/validation_annotation/validation-3.png cannot be read: No such file or directory",
    }
    assert f"not scored: {data}/validation/validation-2.jpg: 80×70 pixels do not fit" in caplog.text


def test_memory_that_runs_out_costs_its_picture_alone(make_job: JobFactory) -> None:
    class Failing(Fake):
        def answers(self, images: list[np.ndarray]) -> list[EncodedResponse]:
            found = super().answers(images)
            return [MemoryError("memory ran out")] if len(self.asked) == 2 else found

    found = run(make_job(validation=3), Failing())
    assert len(found.scored) == 2 and not found.complete
    assert [skipped.reason for skipped in found.skipped] == ["memory ran out while it was scored"]


@pytest.mark.parametrize("by", ["the event", "the scorer"])
def test_what_is_scored_before_the_end_is_a_sample(make_job: JobFactory, by: str) -> None:
    until = threading.Event()

    class Ending(Fake):
        def answers(self, images: list[np.ndarray]) -> list[EncodedResponse]:
            if len(self.asked) == 3 and by == "the scorer":
                raise JobCancelledError
            found = super().answers(images)
            if len(self.asked) == 3 and by == "the event":
                until.set()
            return found

    root = make_job(validation=9)
    whole = stems(run(root, Fake()))
    found = run(root, Ending(), until)
    assert found.cancelled and not found.complete
    assert stems(found) == whole[:3]  # the first of a random order
    assert (found.coverage()["images"], found.coverage()["of"]) == (3, 9)
    assert sum(map(sum, found.figures()["confusion"])) == 3 * LABELLED


def test_time_that_ends_with_the_last_picture_costs_nothing(make_job: JobFactory) -> None:
    until = threading.Event()

    class Late(Fake):
        def answers(self, images: list[np.ndarray]) -> list[EncodedResponse]:
            if len(self.asked) == 2:
                until.set()
            return super().answers(images)

    assert run(make_job(validation=3), Late(), until).complete


def test_no_time_gives_no_figure(make_job: JobFactory) -> None:
    until = threading.Event()
    until.set()
    figures = run(make_job(validation=2), Fake(), until).figures()
    assert (figures["images"], figures["mIOU"], figures["pixel_accuracy"], figures["iou"]) == (
        0,
        None,
        None,
        [None] * 2,
    )


def test_a_stream_that_breaks_is_a_sample_with_the_reason(
    make_job: JobFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    loader = open_loader(make_job(validation=3))
    whole = loader._samples.epoch

    def broken(*arguments: object) -> object:
        yield from list(whole(*arguments))[:2]  # type: ignore[arg-type]
        raise PlatformError("channel validation: nothing came")

    monkeypatch.setattr(loader._samples, "epoch", broken)
    figures = score(loader, Fake(), 2, threading.Event()).figures()
    assert (figures["images"], figures["complete"]) == (2, False)
    assert figures["reason"] == "channel validation: nothing came" and len(figures["scored"]) == 2


def test_a_stream_that_ends_because_time_did_is_a_sample(make_job: JobFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    loader, until = open_loader(make_job(validation=3)), threading.Event()
    monkeypatch.setattr(loader._samples, "listed", lambda: None)  # as a stream does
    whole = loader._samples.epoch

    def ended(*arguments: object) -> object:
        yield from list(whole(*arguments))[:2]  # type: ignore[arg-type]
        until.set()  # and the reader ends without a word

    class Ready(Fake):
        ahead = 0

    monkeypatch.setattr(loader._samples, "epoch", ended)
    found = score(loader, Ready(), 2, until)
    assert found.cancelled and not found.complete
    assert (found.coverage()["images"], found.coverage()["of"]) == (2, None)


def test_two_models_are_compared_on_the_same_pixels(make_job: JobFactory) -> None:
    found = run(make_job(validation=2), Fake(models=2))
    assert (found.agreeing, found.pixels) == (0, 2 * 40 * 48)
    assert found.confusions[1].counts[:, 0].sum() == 0 and found.confusions[1].counts.sum() == 2 * LABELLED
