"""`statistics.json` for the SageMaker AI Model Registry."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from container.arrays import Int64Array
from container.artifact import model_directory
from container.metrics import ConfusionMatrix
from container.training.report.class_metrics import class_metrics

STATISTICS = "statistics.json"

_BETAS = {"weighted_f0_5": 0.5, "weighted_f1": 1.0, "weighted_f2": 2.0}


def write_statistics(folder: Path, channel: str, images: int, of: int | None, confusion: ConfusionMatrix) -> None:
    """Write the metrics of `images` out of `of` images of a channel; raises PlatformError for a disk error."""
    content = {
        "dataset": {"channel": channel, "item_count": images, "of": of},
        "multiclass_classification_metrics": multiclass_metrics(confusion),
    }
    model_directory.write_json(folder / STATISTICS, content)


def multiclass_metrics(confusion: ConfusionMatrix) -> dict[str, Any]:
    """Return the multiclass metrics of Model Monitor, with pixels as samples, and the mIOU.

    Weighted metrics are means over the classes, weighted by their annotated pixels. A class that was never predicted
    has precision 0. There is no standard deviation because there is one run. Model Monitor writes "NaN" in this case.
    """
    values = {"accuracy": confusion.pixel_accuracy, "mIOU": confusion.miou, **_weighted(confusion.counts)}
    return {
        "confusion_matrix": _matrix(confusion.counts),
        **{name: {"value": value, "standard_deviation": "NaN"} for name, value in values.items()},
    }


def _weighted(counts: Int64Array) -> dict[str, float]:
    metrics = class_metrics(counts)
    weights = np.array([row.truth for row in metrics])
    recall = np.array([row.recall or 0.0 for row in metrics])
    precision = np.array([row.precision or 0.0 for row in metrics])
    found = {"weighted_recall": recall, "weighted_precision": precision}
    for name, beta in _BETAS.items():
        below = beta**2 * precision + recall
        found[name] = np.where(below > 0, (1 + beta**2) * precision * recall / np.where(below > 0, below, 1), 0)
    return {name: float((weights * values).sum()) for name, values in found.items()}


def _matrix(counts: Int64Array) -> dict[str, dict[str, int]]:
    """Return the pixel counts by true and predicted class, for the classes that occur."""
    occurring = np.flatnonzero(counts.sum(0) + counts.sum(1)).tolist()
    return {str(row): {str(column): int(counts[row, column]) for column in occurring} for row in occurring}
