"""Metrics per class, and confusions between classes."""

from __future__ import annotations

import dataclasses

import numpy as np

from container.arrays import Array, Int64Array


@dataclasses.dataclass(frozen=True)
class ClassMetrics:
    """Metrics of one class. `truth` and `predicted` are shares of the labeled pixels. Undefined metrics are None."""

    label: int
    iou: float | None
    recall: float | None  # share of the pixels of the class that are predicted as the class
    precision: float | None  # share of the pixels predicted as the class that belong to it
    truth: float
    predicted: float


@dataclasses.dataclass(frozen=True)
class Confusion:
    """Pixels of one class predicted as another class: shares of all labeled pixels, and of the pixels of the class."""

    truth: int
    predicted: int
    share: float
    of_class: float


def class_metrics(confusion: Int64Array) -> list[ClassMetrics]:
    """Return the metrics of every class, in the order of the class IDs."""
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


def worst_first(metrics: list[ClassMetrics]) -> list[ClassMetrics]:
    """Sort classes by IoU in ascending order. Classes without annotated pixels come last."""
    return sorted(metrics, key=lambda row: (row.truth == 0, 1.0 if row.iou is None else row.iou, row.label))


def costliest_confusions(confusion: Int64Array, most: int) -> list[Confusion]:
    """Return at most `most` pairs of true and predicted class with the most wrong pixels, in descending order."""
    wrong = confusion.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    total, confusions = max(1, int(confusion.sum())), []
    for truth, predicted in zip(*np.unravel_index(order, wrong.shape), strict=True):
        if count := int(wrong[truth, predicted]):
            of_class = count / int(confusion[truth].sum())
            confusions.append(Confusion(int(truth), int(predicted), count / total, of_class))
    return confusions


def row_shares(confusion: Int64Array) -> Array:
    """Return the matrix with each row divided by its sum, float (C, C). The rows of absent classes contain NaN."""
    sums = confusion.sum(1, keepdims=True)
    return np.where(sums > 0, confusion / np.maximum(sums, 1), np.nan)


def _share(part: np.int64, whole: np.int64) -> float | None:
    return float(part / whole) if whole else None
