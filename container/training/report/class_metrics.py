"""Metrics per class, and confusions between classes."""

from __future__ import annotations

import dataclasses

import numpy as np

from container.arrays import Array, Int64Array


@dataclasses.dataclass(frozen=True)
class ClassMetrics:
    """One class; `truth` and `predicted` are its shares of the labeled pixels, None is what is not defined."""

    label: int
    iou: float | None
    recall: float | None  # of its true pixels, the share that was found
    precision: float | None  # of the pixels predicted as it, the share that is right
    truth: float
    predicted: float


@dataclasses.dataclass(frozen=True)
class Confusion:
    """Pixels of one class taken for another: their share of all labeled pixels, and of the true class's."""

    truth: int
    predicted: int
    share: float
    of_class: float


def class_metrics(confusion: Int64Array) -> list[ClassMetrics]:
    """Return the figures of every class, by id."""
    hits, truth, predicted = np.diag(confusion), confusion.sum(1), confusion.sum(0)
    total = max(1, int(confusion.sum()))
    return [
        ClassMetrics(
            label,
            _share(hits[label], truth[label] + predicted[label] - hits[label]),
            _share(hits[label], truth[label]),
            _share(hits[label], predicted[label]),
            float(truth[label] / total),
            float(predicted[label] / total),
        )
        for label in range(len(confusion))
    ]


def worst_first(figures: list[ClassMetrics]) -> list[ClassMetrics]:
    """Order classes by IoU; those that are not in the truth stand last, whatever was predicted."""
    return sorted(figures, key=lambda row: (row.truth == 0, 1.0 if row.iou is None else row.iou, row.label))


def costliest_confusions(confusion: Int64Array, most: int) -> list[Confusion]:
    """Return the pairs of classes that most pixels are wrong by."""
    wrong = confusion.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    total, mistakes = max(1, int(confusion.sum())), []
    for truth, predicted in zip(*np.unravel_index(order, wrong.shape), strict=True):
        if count := int(wrong[truth, predicted]):
            of_class = count / int(confusion[truth].sum())
            mistakes.append(Confusion(int(truth), int(predicted), count / total, of_class))
    return mistakes


def row_shares(confusion: Int64Array) -> Array:
    """Return the matrix with every row as shares of its sum, float (C, C); NaN in the row of an absent class."""
    sums = confusion.sum(1, keepdims=True)
    return np.where(sums > 0, confusion / np.maximum(sums, 1), np.nan)


def _share(part: np.int64, whole: np.int64) -> float | None:
    return float(part / whole) if whole else None
