"""What the report advises."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from container.artifact.classes import ClassEntry
from container.hyperparameters import load
from container.schema import read_schema
from container.training.report.assessment import assess
from container.training.report.content import Content, EvaluationSummary

GOOD = np.array([[50, 0, 0], [5, 25, 0], [0, 0, 20]])


def epochs(scores: list[float], losses: list[float] | None = None) -> list[dict[str, Any]]:
    losses = losses or [1.0] * len(scores)
    pairs = enumerate(zip(scores, losses, strict=True))
    return [{"epoch": epoch, "mIOU": score, "train_loss": loss} for epoch, (score, loss) in pairs]


def content(history: list[dict[str, Any]], confusion: np.ndarray = GOOD, **changes: Any) -> Content:
    classes = {0: ClassEntry("road"), 1: ClassEntry("kerb")}
    scored = EvaluationSummary("24 whole validation images", confusion, 24)
    return Content("", 3, classes, history=history, **{"epochs": len(history), "scored": scored, **changes})


def test_assessment_without_advice_has_the_metrics_and_the_weakest_class() -> None:
    summary = assess(content(epochs([0.5, 0.7, 0.7, 0.7, 0.7, 0.7])))
    # IoU 50/55, 25/30 and 1: their mean is 0.914
    expected = "mIOU 0.914 on 24 whole validation images, best in epoch 1 of 0 to 5"
    assert summary.sentence == f"{expected}. The weakest class is kerb (IoU 0.833). Add more examples of it"
    assert summary.further == ()


def test_a_score_that_still_rises_asks_for_more_epochs() -> None:
    rising = epochs([0.1, 0.3, 0.5, 0.55, 0.6, 0.65])
    assert assess(content(rising)).sentence.endswith("still increasing when training ended. Train for more epochs")
    assert "more epochs" not in assess(content(rising, early=True)).sentence
    assert "more epochs" not in assess(content(rising, epochs=20)).sentence  # they are still to come


def test_epochs_between_validations_have_no_say() -> None:
    def every_other(*scores: float) -> list[dict[str, Any]]:
        figures = epochs([score for score in scores for _ in range(2)])
        for entry in figures[::2]:
            del entry["mIOU"]
        return figures

    summary = assess(content(every_other(0.5, 0.7, 0.7, 0.7)))
    assert "best in epoch 3 of 0 to 7. The weakest class is kerb" in summary.sentence
    assert "more epochs" in assess(content(every_other(0.1, 0.3, 0.5, 0.65))).sentence
    assert assess(content(every_other(0.5)[:1], scored=None)).sentence.startswith("No epoch is complete")


def test_a_class_that_is_never_predicted_is_named_first() -> None:
    missed = np.array([[50, 0, 0], [30, 0, 0], [20, 0, 0]])
    summary = assess(content(epochs([0.1, 0.2, 0.3]), missed))
    assert "The model never predicts kerb (30.0% of the labeled pixels), class 2 (20.0%)" in summary.sentence
    assert any("more epochs" in advice for advice in summary.further)


def test_a_loss_that_falls_while_the_score_falls_is_learning_by_heart() -> None:
    summary = assess(content(epochs([0.4, 0.6, 0.5, 0.5], [1.0, 0.5, 0.3, 0.2])))
    assert (
        "After epoch 1, the training loss continued to decrease while the validation mIOU decreased by 0.100"
        in summary.sentence
    )


def test_data_that_are_mostly_ignored_are_named() -> None:
    audit = {"channels": {"train": {"ignored_share": 0.62}, "validation": {"ignored_share": 0.1}}}
    summary = assess(content(epochs([0.5, 0.5, 0.5]), audit=audit))
    assert "62.0% of the pixels of channel train are ignored" in summary.sentence


def test_a_job_without_an_epoch_has_no_score() -> None:
    assert assess(Content("", 3)).sentence == "No epoch is complete, so there are no metrics"


def test_an_evaluation_has_no_epochs() -> None:
    assert assess(content([])).sentence.startswith("mIOU 0.914 on 24 whole validation images. ")


def test_before_the_first_full_score_the_epochs_are_judged() -> None:
    summary = assess(content(epochs([0.2, 0.5, 0.5, 0.5]), scored=None))
    assert summary.sentence.startswith("mIOU 0.500 in validation, best in epoch 1 of 0 to 3. ")


SCALE = {
    "kind": "scale",
    "message": "channel train: training scales the images by 0.05 to 0.2. Train with base_size=640",
}


def test_another_scale_is_named_before_any_other_cause() -> None:
    missed = np.array([[50, 0, 0], [30, 0, 0], [20, 0, 0]])  # IoU 0.5, 0 and 0: their mean is 0.167
    summary = assess(content(epochs([0.2, 0.6, 0.88]), missed, audit={"warnings": [SCALE]}))
    assert summary.sentence == (
        "mIOU 0.167 on 24 whole validation images, best in epoch 2 of 0 to 2. The mIOU of full images is 0.713 lower "
        f"than the validation mIOU in epoch 2. The most likely cause is the scale of the images: {SCALE['message']}"
    )
    assert "never predicts" in summary.further[0]
    early = assess(content(epochs([0.2]), scored=None, audit={"warnings": [SCALE]}))
    assert early.sentence.endswith(f". {SCALE['message']}")


def test_full_images_that_do_much_worse_are_reported_without_a_known_cause() -> None:
    summary = assess(content(epochs([0.98, 0.97, 0.99]), np.array([[50, 10, 0], [15, 25, 0], [0, 0, 20]])))
    assert "The mIOU of full images is 0.268 lower than the validation mIOU in epoch 2. Center" in summary.sentence
    assert "_validation=full" in summary.sentence  # IoU 50/75, 25/50 and 1: their mean is 0.722


# What each recommendation of the report needs, by the optimizers' and losses' own definitions
NEEDS = {
    "weight_decay": lambda job: (
        job.optimizer in ("sgd", "adamw") or (job.optimizer == "rmsprop" and job.rmsprop_centered)
    ),
    "_augmentation": lambda job: job.augmentation == "default",
    "_rare_crops": lambda job: not job.rare_crops,
    "_class_weights": lambda job: job.class_weights is None,
    "_loss": lambda job: job.loss == "ce",
    "_validation": lambda job: job.validation == "crop",
}
OPTIONS = [
    {},
    *({"optimizer": name} for name in ("adam", "rmsprop", "nag", "adagrad", "adadelta", "adamw")),
    {"optimizer": "rmsprop", "_rmsprop_centered": True},
    {"_augmentation": "strong"},
    {"_augmentation": {"rotation": 5}, "optimizer": "adam"},
    {"_rare_crops": 0.5},
    {"_class_weights": "enet"},
    {"_class_weights": [1, 2, 3], "_rare_crops": 0.5},
    {"_class_weights": [1, 2, 3], "_rare_crops": 0.5, "_loss": "focal"},
    {"_validation": "full"},
    {"algorithm": "fastscnn"},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_every_recommended_option_has_an_effect_and_is_not_set_already(options: dict[str, Any]) -> None:
    job = load({"num_classes": 3, "num_training_samples": 4, **options})
    settings = job.as_dict()
    missed = np.array([[50, 0, 0], [30, 0, 0], [20, 0, 0]])
    histories = [epochs([0.1, 0.2, 0.9]), epochs([0.4, 0.9, 0.5, 0.5], [1.0, 0.5, 0.3, 0.2]), epochs([0.9])]
    both = GOOD, missed
    assessments = [assess(content(history, matrix, settings=settings)) for history in histories for matrix in both]
    text = " ".join(sentence for each in assessments for sentence in (each.sentence, *each.further))
    named = {name for name in read_schema()["properties"] if re.search(rf"(?<![a-z_]){name}\b", text)} - {"epochs"}
    named -= {"crop_size"}  # what the scale of center crops follows from
    assert named <= NEEDS.keys()
    assert {name for name in named if not NEEDS[name](job)} == set()
    for name in ("weight_decay", "_augmentation", "_validation"):  # and what helps is recommended
        assert (name in named) == NEEDS[name](job), name
