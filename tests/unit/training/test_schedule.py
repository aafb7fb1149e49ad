"""Learning rates and early stopping, against the published log and by hand."""

from __future__ import annotations

import pytest

from container.hyperparameters import load
from container.metrics import notice_line
from container.training.schedule import EarlyStopping, explain_schedule, learning_rate, warmed_up

REQUIRED = {"num_classes": 21, "num_training_samples": 1464}


def test_poly_is_the_published_jobs() -> None:
    # 91 iterations an epoch, 30 epochs: the log says 0.000993 at iteration 20 of epoch 0
    job = load({**REQUIRED, "epochs": 30})
    line = notice_line(0, 20, 69.5159223265, learning_rate(job, 20 / 91))
    assert line == (
        "#progress_notice. epoch: 0, iterations: 20 speed: 69.5159223265 samples/sec learning_rate: 0.000993"
    )


@pytest.mark.parametrize(("position", "rate"), [(0, 0.1), (5, 0.1 * 0.5**0.9), (10, 0.0), (11, 0.0)])
def test_poly(position: float, rate: float) -> None:
    assert learning_rate(load({**REQUIRED, "learning_rate": 0.1}), position) == pytest.approx(rate)


@pytest.mark.parametrize(("position", "rate"), [(0, 0.1), (5, 0.05), (10, 0.0), (2.5, 0.1 * 0.85355339)])
def test_cosine(position: float, rate: float) -> None:
    job = load({**REQUIRED, "learning_rate": 0.1, "lr_scheduler": "cosine"})
    assert learning_rate(job, position) == pytest.approx(rate, abs=1e-9)


@pytest.mark.parametrize(("position", "rate"), [(0, 0.1), (2.99, 0.1), (3, 0.02), (6, 0.004), (9, 0.004)])
def test_step(position: float, rate: float) -> None:
    job = load(
        {
            **REQUIRED,
            "learning_rate": 0.1,
            "lr_scheduler": "step",
            "lr_scheduler_step": "6, 3",
            "lr_scheduler_factor": 0.2,
        }
    )
    assert learning_rate(job, position) == pytest.approx(rate)


def stops_after(scores: list[float], **changes: object) -> int | None:
    early = EarlyStopping(load({**REQUIRED, "early_stopping": True, **changes}))
    return next((epoch for epoch, score in enumerate(scores) if early.update(epoch, score)), None)


def test_four_epochs_without_improvement_stop_the_job() -> None:
    assert stops_after([0.1, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2]) == 5
    assert stops_after([0.5, 0.4, 0.3, 0.2, 0.1, 0.1]) == 4  # not before early_stopping_min_epochs (5)
    assert stops_after([0.1, 0.2, 0.1, 0.1, 0.1, 0.3, 0.2, 0.2]) is None


def test_an_improvement_must_exceed_the_tolerance() -> None:
    scores = [0.500, 0.504, 0.508, 0.512, 0.516]
    assert stops_after(scores, early_stopping_min_epochs=1, early_stopping_patience=2) is None
    settings = {"early_stopping_min_epochs": 1, "early_stopping_patience": 2, "early_stopping_tolerance": 0.02}
    assert stops_after(scores, **settings) == 2


def test_early_stopping_is_off_by_default() -> None:
    assert stops_after([0.1] * 20, early_stopping=False) is None


def test_the_rate_rises_linearly_during_the_warm_up() -> None:
    job = load({"num_classes": 2, "num_training_samples": 4, "_warmup_iterations": 4})
    assert [warmed_up(job, step) for step in range(6)] == [0.25, 0.5, 0.75, 1, 1, 1]
    assert warmed_up(load({"num_classes": 2, "num_training_samples": 4}), 0) == 1


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"_warmup_iterations": 920}, "_warmup_iterations=920 is more than the 910 iterations of all 10 epochs"),
        ({"_accumulate": 92}, "_accumulate=92 is more than the 91 iterations of an epoch"),
        ({"early_stopping": True, "_validation_interval": 3}, "early_stopping has no effect: there are 3 scores"),
        ({"early_stopping": True, "_validation_interval": 8}, "early_stopping has no effect: there is 1 score before"),
        ({"early_stopping": True, "early_stopping_min_epochs": 10}, "early_stopping has no effect: the last score"),
        ({"early_stopping": True, "early_stopping_min_epochs": 9}, ""),
        ({"early_stopping_min_epochs": 10}, ""),
        ({"_warmup_iterations": 920, "optimizer": "adadelta"}, ""),
        ({"_warmup_iterations": 910, "_accumulate": 91, "early_stopping": True}, ""),
        ({"_validation_interval": 20}, ""),
    ],
)
def test_what_a_job_is_too_short_for_is_told(
    changes: dict[str, object], told: str, caplog: pytest.LogCaptureFixture
) -> None:
    job = load({**REQUIRED, **changes})
    caplog.clear()
    explain_schedule(job, 91)
    messages = [record.getMessage() for record in caplog.records]
    assert [message[: len(told)] for message in messages] == ([told] if told else [])
