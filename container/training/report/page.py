"""Rendering of the report page from the template `page.html.j2`."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from container.arrays import Uint8Array
from container.data.audit.issues import percent
from container.errors import printable
from container.training.report.assessment import assess
from container.training.report.class_metrics import class_metrics, costliest_confusions, row_shares, worst_first
from container.training.report.comparison import compare
from container.training.report.content import Content, EvaluationSummary, ExampleImage
from container.training.report.curves import draw_curves
from container.training.report.images import class_palette, draw_example, draw_heat_map

PAGE = "report.html"
EPOCHS = "metrics.csv"

COLUMNS = (  # of metrics.csv: keys of an epoch in report.json
    "epoch", "train_loss", "mIOU", "pixel_accuracy", "learning_rate", "train_throughput", "validation_throughput",
    "train_seconds", "validation_seconds",
)  # fmt: skip

_SIDES = (320, 240, 180, 130, 90, 60)  # pixels of the images; the largest size that fits is used
_IMAGE_BYTES = 1_100_000  # for all images; the page has at most 2 MB
_MOST_CELLS = 24  # classes; with more, the confusion matrix is an image instead of a table
_MOST_EPOCHS = 40  # rows of the table of epochs
_MOST_ISSUES, _MOST_DETAILS = 20, 5  # of the audit
_MOST_CLASSES = 4  # classes in an alternative text
_NAME, _TEXT = 60, 1000  # characters of a name, and of a message


_Four = tuple[str, str, str, str]
_Drawn = tuple[ExampleImage, _Four, _Four]  # with its images, and their alternative texts


def render_page(content: Content) -> str:
    """Render the report as one HTML file of less than 2 MB."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "name": _name, "text": _text, "figure": _figure}
    return environment.get_template("page.html.j2").render(**_values(content))


def render_epochs(history: Sequence[Mapping[str, Any]]) -> str:
    """Render the epochs as CSV with the numbers of report.json; unknown values are empty cells."""
    target = io.StringIO()
    rows = csv.DictWriter(target, COLUMNS, restval="", extrasaction="ignore", lineterminator="\n")
    rows.writeheader()
    rows.writerows(history)
    return target.getvalue()


def _values(content: Content) -> dict[str, Any]:
    """Return the variables of the template."""
    best, scored = content.best, content.scored
    palette = class_palette(content.classes)
    rows = worst_first(class_metrics(scored.confusion)) if scored else []
    return {
        "content": content,
        "assessment": assess(content),
        "best": best,
        "scored": scored,
        "rows": [row for row in rows if row.iou is not None],
        "absent": [row.label for row in rows if row.iou is None],
        "color": lambda label: "#{:02x}{:02x}{:02x}".format(*palette[label]),
        "curves": draw_curves(content.history, best["epoch"] if best else None),
        "epochs": _shown_epochs(content),
        "columns": COLUMNS,
        "confusions": costliest_confusions(scored.confusion, 5) if scored else [],
        "confusion": _confusion(content, scored) if scored else None,
        "groups": _draw_groups(content, scored, palette) if scored else [],
        "comparison": compare(content),
        "issues": _issues(content.audit or {}),
        "most_issues": _MOST_ISSUES,
    }


def _shown_epochs(content: Content) -> Sequence[Mapping[str, Any]]:
    """Return the epochs for the table: all, or if there are too many, the first, the last, and the best."""
    history, best = content.history, content.best
    if len(history) <= _MOST_EPOCHS:
        return history
    half = _MOST_EPOCHS // 2
    middle = [entry for entry in history[half:-half] if entry is best]
    return [*history[:half], *middle, *history[-half:]]


def _confusion(content: Content, scored: EvaluationSummary) -> dict[str, Any]:
    """Prepare the confusion matrix of the classes that occur: a table, or an image if there are many classes."""
    occurring = np.flatnonzero(scored.confusion.sum(0) + scored.confusion.sum(1)).tolist()
    shares = row_shares(scored.confusion)[np.ix_(occurring, occurring)]
    is_table = len(occurring) <= _MOST_CELLS
    return {
        "labels": occurring,
        "rows": shares.tolist() if is_table else [],
        "image": None if is_table or not occurring else draw_heat_map(shares),
    }


def _draw_groups(content: Content, scored: EvaluationSummary, palette: Uint8Array) -> list[tuple[str, list[_Drawn]]]:
    """Draw the worst, median, and best examples, in the largest size that fits in the page."""
    named = (("Worst", scored.worst), ("Median", scored.median), ("Best", scored.best))
    for side in _SIDES:
        groups = [
            (title, [(each, draw_example(each, palette, side), _alternative_texts(content, each)) for each in examples])
            for title, examples in named
            if examples
        ]
        if sum(len(uri) for _, drawn in groups for _, uris, _ in drawn for uri in uris) <= _IMAGE_BYTES:
            break
    return groups


def _alternative_texts(content: Content, example: ExampleImage) -> _Four:
    """Return the alternative texts of the four images of an example."""
    return (
        _name(example.name),
        _describe_classes(content, example.labels),
        _describe_classes(content, example.prediction),
        f"{percent(example.wrong)} of the labeled pixels are wrong",
    )


def _describe_classes(content: Content, labels: Uint8Array) -> str:
    """Return the largest classes of a mask with their shares of its labeled pixels."""
    counts = np.bincount(labels.ravel(), minlength=256)[: content.num_classes]
    largest = [label for label in np.argsort(-counts, kind="stable")[:_MOST_CLASSES].tolist() if counts[label]]
    return ", ".join(f"{_name(content.called(label))} {percent(counts[label] / counts.sum())}" for label in largest)


def _issues(audit: Mapping[str, Any]) -> list[dict[str, Any]]:
    """List the errors and warnings of the audit, each with its first details and the number of the other details."""
    return [
        {
            "kind": kind,
            "message": issue.get("message", ""),
            "details": issue.get("details", [])[:_MOST_DETAILS],
            "more": max(0, len(issue.get("details", [])) - _MOST_DETAILS),
        }
        for kind in ("errors", "warnings")
        for issue in audit.get(kind, [])
    ]


def _name(value: object) -> str:
    """Shorten a name in the middle; characters that are not printable are escaped."""
    return _shorten(printable(str(value)), _NAME)


def _text(value: object) -> str:
    return _shorten(printable(str(value)), _TEXT)


def _shorten(text: str, most: int) -> str:
    half = most // 2
    return text if len(text) <= most else f"{text[:half]}…{text[-half:]}"


def _figure(value: object) -> str:
    """Format a number with four digits; unknown values are a dash."""
    if value is None or value == "":
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
