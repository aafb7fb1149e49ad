"""statistics.json, against the example in AWS's description of the form (model-monitor-model-quality-metrics)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from container.metrics import ConfusionMatrix
from container.training.report.statistics import multiclass_metrics, write_statistics

AWS = {
    "accuracy": 0.6288167938931297,
    "weighted_recall": 0.6288167938931297,
    "weighted_precision": 0.6983172269629505,
    "weighted_f0_5": 0.6803947317178771,
    "weighted_f1": 0.6571162346664904,
    "weighted_f2": 0.6384024354394601,
}


def confusion(counts: list[list[int]]) -> ConfusionMatrix:
    found = ConfusionMatrix(len(counts))
    found.counts = np.array(counts, np.int64)
    return found


def test_awss_own_example_has_awss_figures() -> None:
    metrics = multiclass_metrics(confusion([[1180, 510], [268, 138]]))
    assert metrics.pop("confusion_matrix") == {"0": {"0": 1180, "1": 510}, "1": {"0": 268, "1": 138}}
    assert metrics.pop("mIOU")["value"] == pytest.approx((1180 / 1958 + 138 / 916) / 2)
    assert {name: entry["value"] for name, entry in metrics.items()} == pytest.approx(AWS, rel=1e-15)
    assert all(entry["standard_deviation"] == "NaN" for entry in metrics.values())


def test_a_class_that_is_never_predicted_counts_nothing_and_one_that_is_nowhere_is_left_out() -> None:
    metrics = multiclass_metrics(confusion([[30, 0, 0, 0], [10, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 60]]))
    assert metrics["confusion_matrix"] == {
        "0": {"0": 30, "1": 0, "3": 0},
        "1": {"0": 10, "1": 0, "3": 0},
        "3": {"0": 0, "1": 0, "3": 60},
    }
    assert metrics["weighted_precision"]["value"] == pytest.approx(0.3 * 0.75 + 0.6)
    assert metrics["weighted_recall"]["value"] == pytest.approx(0.9)
    assert metrics["weighted_f1"]["value"] == pytest.approx(0.3 * (2 * 0.75 / 1.75) + 0.6)


def test_images_without_a_labeled_pixel_have_zeros_and_valid_json(tmp_path: Path) -> None:
    write_statistics(tmp_path, "test", 3, 5, confusion([[0, 0], [0, 0]]))

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    content = json.loads((tmp_path / "statistics.json").read_text(), parse_constant=refuse)
    assert content["dataset"] == {"channel": "test", "item_count": 3, "of": 5}
    metrics = content["multiclass_classification_metrics"]
    assert metrics.pop("confusion_matrix") == {}
    assert {entry["value"] for entry in metrics.values()} == {0}
