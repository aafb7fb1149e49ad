"""Metrics, their log lines, and the regular expressions that match them.

The lines are identical to those of the built-in algorithm, because tuning jobs and dashboards read them. The examples
import this module in environments without NumPy, so only `ConfusionMatrix` imports NumPy.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from container.arrays import Array, Uint8Array

_COUNTED_AT_ONCE = 2**20  # pixels; counting needs 40 bytes per pixel

METRIC_DEFINITIONS = {
    "train:loss": r"#quality_metric\. host: \S+, epoch: \S+, train loss: (\S+) \.",
    "train:throughput": r"#throughput_metric\. host: \S+, epoch: \S+, train throughput: (\S+) samples/sec",
    "train:progress": r"#progress_metric: host=\S+, completed (\S+) %",
    "validation:mIOU": r"#quality_metric\. host: \S+, epoch: \S+, validation mIOU: (\S+) \.",
    "validation:pixel_accuracy": r"#quality_metric\. host: \S+, epoch: \S+, validation pixel_accuracy: (\S+) \.",
    "validation:throughput": r"#throughput_metric\. host: \S+, epoch: \S+, validation throughput: (\S+) samples/sec",
}


def metric_definitions(*names: str) -> list[dict[str, str]]:
    """Return the `MetricDefinitions` of the SageMaker API for the metrics `names`, or for all metrics."""
    return [{"Name": name, "Regex": METRIC_DEFINITIONS[name]} for name in names or METRIC_DEFINITIONS]


def class_metric_definitions(classes: Iterable[int]) -> dict[str, str]:
    """Return names and regular expressions for the IoU lines of classes. A job can define at most 40 metrics."""
    start = r"#quality_metric\. host: \S+, epoch: \S+, validation "
    return {f"validation:IOU_{label}": rf"{start}{class_name(label)}: (\S+) \." for label in classes}


def class_name(label: int) -> str:
    """Return the name of the IoU of a class in a `quality_line`: by ID, because names can contain any characters."""
    return f"IOU of class {label}"


def quality_line(host: str, epoch: int, name: str, value: float) -> str:
    """Return the log line of a quality metric, for example `train loss` or `validation mIOU`."""
    return f"#quality_metric. host: {host}, epoch: {epoch}, {name}: {value} ."


def throughput_line(host: str, epoch: int, phase: str, samples_per_second: float) -> str:
    """Return the log line with the throughput of a phase (`train` or `validation`)."""
    return f"#throughput_metric. host: {host}, epoch: {epoch}, {phase} throughput: {samples_per_second} samples/sec."


def notice_line(epoch: int, iterations: int, samples_per_second: float, learning_rate: float | None = None) -> str:
    """Return the log line with the speed within an epoch.

    `learning_rate` is that of the next iteration. The line of a validation has none.
    """
    line = f"#progress_notice. epoch: {epoch}, iterations: {iterations} speed: {samples_per_second} samples/sec"
    return line if learning_rate is None else f"{line} learning_rate: {learning_rate:.6f}"


def progress_line(host: str, done: int, epochs: int) -> str:
    """Return the log line with the percentage of complete epochs, rounded down."""
    return f"#progress_metric: host={host}, completed {100 * done // epochs} % of epochs"


def metrics_json(dimensions: Mapping[str, str | int], start: float, end: float, values: Mapping[str, float]) -> str:
    """Return the `#metrics` line in the format of the built-in algorithm; times are seconds since 1970."""
    content = {
        "Metrics": {
            name: {"count": 1, "max": value, "sum": float(value), "min": value} for name, value in values.items()
        },
        "EndTime": end,
        "Dimensions": dimensions,
        "StartTime": start,
    }
    return "#metrics " + json.dumps(content)


def dimensions(host: str, operation: str, epoch: int | None = None, meta: str | None = None) -> dict[str, str | int]:
    """Return the dimensions of a `#metrics` line, without the ones that are None."""
    found = {
        "Host": host,
        "Meta": meta,
        "Operation": operation,
        "Algorithm": "AWS/Semantic Segmentation",
        "epoch": epoch,
    }
    return {name: value for name, value in found.items() if value is not None}


def iterator_counts(passes: Sequence[tuple[int, int]]) -> dict[str, int]:
    """Return the counts that a `#metrics` line has of the training data: `passes` are batches and records per epoch."""
    batches, records = [each for each, _ in passes] or [0], [each for _, each in passes] or [0]
    return {
        "Max Batches Seen Between Resets": max(batches),
        "Number of Batches Since Last Reset": batches[-1],
        "Number of Records Since Last Reset": records[-1],
        "Total Batches Seen": sum(batches),
        "Total Records Seen": sum(records),
        "Max Records Seen Between Resets": max(records),
        "Reset Count": len(passes),
    }


class ConfusionMatrix:
    """Counts of (true, predicted) class pairs over any number of images."""

    def __init__(self, num_classes: int) -> None:
        import numpy as np

        self.counts = np.zeros((num_classes, num_classes), np.int64)

    def update(self, labels: Uint8Array, predictions: Uint8Array) -> None:
        """Count two integer arrays with equal shapes; pixels without a valid class ID (255) are excluded."""
        import numpy as np

        classes = len(self.counts)
        true, predicted = labels.reshape(-1), predictions.reshape(-1)
        for start in range(0, true.size, _COUNTED_AT_ONCE):
            part = slice(start, start + _COUNTED_AT_ONCE)
            counted = true[part] < classes
            pairs = true[part][counted].astype(np.int64) * classes + predicted[part][counted].astype(np.int64)
            self.counts += np.bincount(pairs, minlength=classes**2).reshape(classes, classes)

    @property
    def pixel_accuracy(self) -> float:
        """Share of the labeled pixels with a correct prediction; 0 if there are no labeled pixels."""
        return float(self.counts.trace() / max(1, self.counts.sum()))

    def iou(self) -> Array:
        """Intersection over union per class; NaN for a class that is neither in the labels nor in the predictions."""
        import numpy as np

        intersection = np.diag(self.counts)
        union = self.counts.sum(0) + self.counts.sum(1) - intersection
        return np.where(union > 0, intersection / np.maximum(union, 1), np.nan)

    @property
    def miou(self) -> float:
        """Mean of `iou` over the classes that occur; 0 if no class occurs."""
        import numpy as np

        scores = self.iou()
        return float(np.nanmean(scores)) if np.isfinite(scores).any() else 0.0


def _render_definitions() -> str:
    """Render all metric definitions as a Python snippet, for the page on training."""
    rows = [f'    {{"Name": "{each["Name"]}", "Regex": r"{each["Regex"]}"}},' for each in metric_definitions()]
    return "\n".join(["```python run", "metric_definitions = [", *rows, "]", "```"])


if __name__ == "__main__":
    print(_render_definitions())
