"""Log lines against the published job's, scores against a hand-made case."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import numpy as np
import pytest

from container import metrics
from tests.conftest import PROGRAM

# the lines of a public job of the built-in algorithm
PUBLISHED = {
    "train:loss": "#quality_metric. host: algo-1, epoch: 0, train loss: 2.4600368495825884 .",
    "train:throughput": "#throughput_metric. host: algo-1, epoch: 0, train throughput: 73.2122990247 samples/sec.",
    "validation:pixel_accuracy": (
        "#quality_metric. host: algo-1, epoch: 0, validation pixel_accuracy: 0.7104060199108813 ."
    ),
    "validation:mIOU": "#quality_metric. host: algo-1, epoch: 0, validation mIOU: 0.09640348511110089 .",
    "validation:throughput": (
        "#throughput_metric. host: algo-1, epoch: 0, validation throughput: 121.102919614 samples/sec."
    ),
    "train:progress": "#progress_metric: host=algo-1, completed 3 % of epochs",
}


def test_lines_are_the_published_ones() -> None:
    assert [
        metrics.quality_line("algo-1", 0, "train loss", 2.4600368495825884),
        metrics.throughput_line("algo-1", 0, "train", 73.2122990247),
        metrics.quality_line("algo-1", 0, "validation pixel_accuracy", 0.7104060199108813),
        metrics.quality_line("algo-1", 0, "validation mIOU", 0.09640348511110089),
        metrics.throughput_line("algo-1", 0, "validation", 121.102919614),
        metrics.progress_line("algo-1", 1, 30),
    ] == list(PUBLISHED.values())


@pytest.mark.parametrize("name", PUBLISHED)
def test_each_expression_finds_its_own_line_only(name: str) -> None:
    found = [line for line in PUBLISHED.values() if re.search(metrics.METRIC_DEFINITIONS[name], line)]
    assert found == [PUBLISHED[name]]


def test_metric_definitions_have_the_form_of_the_api() -> None:
    every = metrics.metric_definitions()
    assert [each["Name"] for each in every] == list(metrics.METRIC_DEFINITIONS)
    assert re.search(every[0]["Regex"], PUBLISHED["train:loss"])[1] == "2.4600368495825884"  # type: ignore[index]
    (chosen,) = metrics.metric_definitions("validation:mIOU")
    assert chosen in every and chosen["Name"] == "validation:mIOU"


def test_metric_definitions_need_no_numpy() -> None:
    script = "import sys; sys.modules['numpy'] = None; from container import metrics; metrics.metric_definitions()"
    subprocess.run([sys.executable, "-c", script], cwd=PROGRAM, check=True)


def test_a_class_has_a_line_and_an_expression_of_its_own() -> None:
    lines = [*PUBLISHED.values()]
    lines += [metrics.quality_line("algo-1", 3, f"validation {metrics.class_name(label)}", 0.25) for label in (1, 11)]
    assert lines[-2] == "#quality_metric. host: algo-1, epoch: 3, validation IOU of class 1: 0.25 ."
    definitions = metrics.class_metric_definitions([1, 11])
    assert list(definitions) == ["validation:IOU_1", "validation:IOU_11"]
    for expression, expected in zip(definitions.values(), lines[-2:], strict=True):
        (found,) = [match for line in lines if (match := re.search(expression, line))]
        assert (found.string, found[1]) == (expected, "0.25")
    for name, expression in metrics.METRIC_DEFINITIONS.items():
        assert [line for line in lines if re.search(expression, line)] == [PUBLISHED[name]]


def test_the_page_shows_the_expression_of_a_class() -> None:
    ((name, expression),) = metrics.class_metric_definitions([3]).items()
    assert f'`{{"Name": "{name}", "Regex": r"{expression}"}}`' in (PROGRAM / "docs/train.md").read_text()


def test_metrics_line_is_json() -> None:
    dimensions = metrics.dimensions("algo-1", "validation", 2)
    line = metrics.metrics_json(dimensions, 10.0, 12.5, {"epochs": 2, "train_loss": 0.5})
    assert line.startswith("#metrics {")
    assert json.loads(line.removeprefix("#metrics ")) == {
        "Metrics": {
            "epochs": {"count": 1, "max": 2, "sum": 2.0, "min": 2},
            "train_loss": {"count": 1, "max": 0.5, "sum": 0.5, "min": 0.5},
        },
        "EndTime": 12.5,
        "Dimensions": {
            "Host": "algo-1",
            "Operation": "validation",
            "Algorithm": "AWS/Semantic Segmentation",
            "epoch": 2,
        },
        "StartTime": 10.0,
    }
    assert '{"count": 1, "max": 2, "sum": 2.0, "min": 2}' in line  # whole numbers, as in the published lines


def test_validation_notice_has_no_learning_rate() -> None:
    published = "#progress_notice. epoch: 0, iterations: 20 speed: 125.429157773 samples/sec"
    assert metrics.notice_line(0, 20, 125.429157773) == published


def test_scores_of_a_case_worked_out_by_hand() -> None:
    confusion = metrics.ConfusionMatrix(4)
    confusion.update(np.array([[0, 0, 1], [1, 255, 2]]), np.array([[0, 1, 1], [1, 3, 0]]))
    # class 0: 1 of {0,0 true; 0,0 predicted} → 1/3; class 1: 2/3; class 2: 0/1; class 3 only under ignore: absent
    assert confusion.iou()[:3].tolist() == pytest.approx([1 / 3, 2 / 3, 0])
    assert np.isnan(confusion.iou()[3])
    assert confusion.miou == pytest.approx(1 / 3)
    assert confusion.pixel_accuracy == pytest.approx(3 / 5)


def test_scores_are_summed_over_images() -> None:
    confusion = metrics.ConfusionMatrix(2)
    confusion.update(np.array([0, 0, 0, 0]), np.array([0, 0, 0, 1]))
    confusion.update(np.array([1]), np.array([1]))
    assert confusion.iou().tolist() == pytest.approx([3 / 4, 1 / 2])


def test_nothing_labeled_scores_zero() -> None:
    confusion = metrics.ConfusionMatrix(2)
    confusion.update(np.array([255]), np.array([0]))
    assert (confusion.miou, confusion.pixel_accuracy) == (0.0, 0.0)


def test_counting_in_parts_counts_every_pixel_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(6)
    labels = rng.integers(0, 4, (2, 5, 7)).astype(np.uint8)
    labels[labels == 3] = 255
    predictions = rng.integers(0, 3, labels.shape).astype(np.uint8)
    monkeypatch.setattr(metrics, "_COUNTED_AT_ONCE", 9)
    confusion = metrics.ConfusionMatrix(3)
    confusion.update(labels[:, ::-1], predictions[:, ::-1])
    for true in range(3):
        for predicted in range(3):
            assert confusion.counts[true, predicted] == ((labels == true) & (predictions == predicted)).sum()
