"""When a job makes an int8 graph, the figures worked out by hand."""

from __future__ import annotations

import pytest

from container.training.scoring.int8_decision import reason_against


def never() -> float:
    raise AssertionError("it does not matter")


def test_who_asks_for_it_gets_it_whatever_it_takes() -> None:
    assert reason_against(True, 0, 10**6, never) == ""


def test_who_does_without_it_gets_none() -> None:
    assert reason_against(False, 10**6, 1, never) == "_quantize is False"


@pytest.mark.parametrize(
    ("hours", "images", "seconds", "makes"),
    [
        (36, 1449, 0.6, True),  # Pascal VOC on two cores: 10 + 0.6 · (24 + 2173.5) = 1328 s of 6480
        (0.25, 1449, 0.6, False),  # on a GPU: of 45 s
        (1, 100, 0.9, True),  # 10 + 0.9 · 174 = 166.6 s of 180
        (1, 100, 1.0, False),  # 10 + 174 = 184 s
    ],
)
def test_auto_makes_it_within_a_twentieth_of_the_jobs_time(
    hours: float, images: int, seconds: float, makes: bool
) -> None:
    assert (reason_against("auto", 3600 * hours, images, lambda: seconds) == "") is makes


def test_the_reason_has_the_figures_and_the_way_out() -> None:
    assert reason_against("auto", 3600, 100, lambda: 1.0) == (
        "it would take at least 184 s, 5% of this job's time are 180 s; _quantize=True makes it all the same"
    )


def test_a_short_job_does_not_even_time_an_image() -> None:
    assert "it would take at least 10 s, 5% of this job's time are 9 s" in reason_against("auto", 180, 1, never)
