"""Two models on the same images."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from container.training.report.comparison import compare, sign_test
from container.training.report.content import Baseline, Content, EvaluationSummary

SPLITS = [(0, 0), (1, 0), (5, 5), (9, 1), (1, 9), (40, 21), (600, 400), (5000, 5000)]


@pytest.mark.parametrize(("better", "worse"), SPLITS)
def test_the_sign_test_is_scipys(better: int, worse: int) -> None:
    expected = binomtest(better, better + worse).pvalue if better + worse else 1.0
    assert sign_test(better, worse) == pytest.approx(expected, rel=1e-9)


def test_classes_and_images_are_ordered_by_what_they_lose() -> None:
    mine, other = np.array([[8, 2], [0, 10]]), np.array([[10, 0], [5, 5]])
    images = {"a": (0.9, 0.5), "b": (0.4, 0.6), "c": (0.7, 0.7004), "d": (0.8, 0.1)}
    content = Content("", 2, scored=EvaluationSummary("", mine, 4), baseline=Baseline("other", other, images))
    found = compare(content)
    assert found is not None
    # IoU of class 0: 8/10 against 10/15, of class 1: 10/12 against 5/10
    assert [(each.label, round(each.gain or 0, 4)) for each in found.classes] == [(0, 0.1333), (1, 0.3333)]
    assert (found.better, found.worse, found.tied) == (2, 1, 1)
    assert [name for name, _, _ in found.gained] == ["d", "a"]
    assert [name for name, _, _ in found.lost] == ["b"]
    assert found.chance == 1.0 and "no evidence" in found.summary


def test_uneven_split_is_evidence_of_a_difference() -> None:
    images = {str(number): (0.4, 0.6) for number in range(10)}
    scored, other = EvaluationSummary("", np.eye(2, dtype=int), 10), np.eye(2, dtype=int)
    found = compare(Content("", 2, scored=scored, baseline=Baseline("other", other, images)))
    assert found is not None and found.chance == pytest.approx(2 / 1024)
    assert found.summary.endswith("equal models is 0.002. This model is worse")


def test_comparison_without_a_baseline_is_none() -> None:
    assert compare(Content("", 2, scored=EvaluationSummary("", np.eye(2, dtype=int), 1))) is None
