"""Figures of classes and pairs of them, against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from container.training.report.class_metrics import class_metrics, costliest_confusions, row_shares, worst_first

# 100 pixels: 50 of class 0, 30 of class 1, 20 of class 2, none of class 3, which is predicted twice; 4 is nowhere
CONFUSION = np.array([[40, 10, 0, 0, 0], [5, 25, 0, 0, 0], [12, 6, 0, 2, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 0]])


def test_a_class_is_described_by_its_row_and_column() -> None:
    sky, road, pole, ghost, absent = class_metrics(CONFUSION)
    assert (sky.iou, sky.recall, sky.precision) == pytest.approx((40 / 67, 0.8, 40 / 57))
    assert (road.truth, road.predicted) == pytest.approx((0.30, 0.41))
    assert (pole.iou, pole.recall, pole.precision) == (0.0, 0.0, None)
    assert (ghost.iou, ghost.recall, ghost.predicted) == pytest.approx((0.0, None, 0.02))
    assert (absent.iou, absent.truth, absent.predicted) == (None, 0.0, 0.0)


def test_the_worst_class_stands_first_and_what_is_not_in_the_truth_last() -> None:
    assert [row.label for row in worst_first(class_metrics(CONFUSION))] == [2, 1, 0, 3, 4]


def test_mistakes_are_ordered_by_their_pixels() -> None:
    confusions = costliest_confusions(CONFUSION, 3)
    assert [(each.truth, each.predicted) for each in confusions] == [(2, 0), (0, 1), (2, 1)]
    assert (confusions[0].share, confusions[0].of_class) == pytest.approx((0.12, 0.6))
    assert len(costliest_confusions(CONFUSION, 50)) == 5  # and none that nobody made


def test_rows_are_shares_and_that_of_an_absent_class_is_not_a_number() -> None:
    shares = row_shares(CONFUSION)
    assert shares[1].tolist() == pytest.approx([5 / 30, 25 / 30, 0, 0, 0])
    assert np.isnan(shares[3]).all()


def test_nothing_at_all_has_no_figures() -> None:
    nothing = np.zeros((2, 2), np.int64)
    assert [row.iou for row in class_metrics(nothing)] == [None, None]
    assert costliest_confusions(nothing, 5) == []
