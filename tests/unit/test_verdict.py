"""What the report advises."""

from __future__ import annotations

from typing import Any

import numpy as np

from container.classes import ClassEntry
from container.training.report.content import Content, Scored
from container.training.report.verdict import judge

GOOD = np.array([[50, 0, 0], [5, 25, 0], [0, 0, 20]])


def epochs(scores: list[float], losses: list[float] | None = None) -> list[dict[str, Any]]:
    losses = losses or [1.0] * len(scores)
    pairs = enumerate(zip(scores, losses, strict=True))
    return [{"epoch": epoch, "mIOU": score, "train_loss": loss} for epoch, (score, loss) in pairs]


def content(history: list[dict[str, Any]], confusion: np.ndarray = GOOD, **changes: Any) -> Content:
    classes = {0: ClassEntry("road"), 1: ClassEntry("kerb")}
    scored = Scored("24 whole validation images", confusion, 24)
    return Content("", 3, classes, history=history, **{"epochs": len(history), "scored": scored, **changes})


def test_the_score_and_the_weakest_class_are_told_when_nothing_is_amiss() -> None:
    told = judge(content(epochs([0.5, 0.7, 0.7, 0.7, 0.7, 0.7])))
    # IoU 50/55, 25/30 and 1: their mean is 0.914
    expected = "mIOU 0.914 on 24 whole validation images, best in epoch 1 of 0 to 5"
    assert told.sentence == f"{expected}; more examples of kerb (IoU 0.833) promise most"
    assert told.further == ()


def test_a_score_that_still_rises_asks_for_more_epochs() -> None:
    rising = epochs([0.1, 0.3, 0.5, 0.55, 0.6, 0.65])
    assert judge(content(rising)).sentence.endswith("still improving when training ended: train for more epochs")
    assert "more epochs" not in judge(content(rising, early=True)).sentence
    assert "more epochs" not in judge(content(rising, epochs=20)).sentence  # they are still to come


def test_epochs_between_validations_have_no_say() -> None:
    def every_other(*scores: float) -> list[dict[str, Any]]:
        figures = epochs([score for score in scores for _ in range(2)])
        for entry in figures[::2]:
            del entry["mIOU"]
        return figures

    told = judge(content(every_other(0.5, 0.7, 0.7, 0.7)))
    assert "best in epoch 3 of 0 to 7; more examples of kerb" in told.sentence
    assert "more epochs" in judge(content(every_other(0.1, 0.3, 0.5, 0.65))).sentence
    assert judge(content(every_other(0.5)[:1], scored=None)).sentence.startswith("No epoch is complete yet")


def test_a_class_that_is_never_predicted_is_named_first() -> None:
    missed = np.array([[50, 0, 0], [30, 0, 0], [20, 0, 0]])
    told = judge(content(epochs([0.1, 0.2, 0.3]), missed))
    assert "kerb (30.0 % of the true pixels), class 2 (20.0 %) are never predicted" in told.sentence
    assert any("more epochs" in advice for advice in told.further)


def test_a_loss_that_falls_while_the_score_falls_is_learning_by_heart() -> None:
    told = judge(content(epochs([0.4, 0.6, 0.5, 0.5], [1.0, 0.5, 0.3, 0.2])))
    assert "after epoch 1 the training loss went on falling while the validation mIOU fell by 0.100" in told.sentence


def test_data_that_are_mostly_ignored_are_named() -> None:
    audit = {"channels": {"train": {"ignored_share": 0.62}, "validation": {"ignored_share": 0.1}}}
    told = judge(content(epochs([0.5, 0.5, 0.5]), audit=audit))
    assert "62.0 % of the pixels of channel train are ignored" in told.sentence


def test_a_job_without_an_epoch_has_no_score() -> None:
    assert judge(Content("", 3)).sentence == "No epoch is complete yet, so there is no score."


def test_an_evaluation_has_no_epochs() -> None:
    assert judge(content([])).sentence.startswith("mIOU 0.914 on 24 whole validation images; ")


def test_before_the_first_full_score_the_epochs_are_judged() -> None:
    told = judge(content(epochs([0.2, 0.5, 0.5, 0.5]), scored=None))
    assert told.sentence.startswith("mIOU 0.500 in validation, best in epoch 1 of 0 to 3; ")
