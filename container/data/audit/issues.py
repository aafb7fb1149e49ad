"""Issues of the audit, and their text in errors, in lists of values, and in the table of the log."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from container.data.audit.statistics import ChannelStatistics
from container.data.labels.decoding import IGNORE
from container.errors import ClientError, shorten_list

LISTED = 10  # values or classes in one sentence
WITHOUT_PALETTE = (
    "save the annotations without a palette: Image.open(path).convert('L').save(path) in Python with Pillow"
)

_MOST_ROWS = 40  # classes in the table


@dataclasses.dataclass(frozen=True)
class Issue:
    """An error or a warning: cause and fix, and the files or values that it is about."""

    kind: str
    message: str
    details: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the content for audit.json."""
        return {"kind": self.kind, "message": self.message, "details": list(self.details)}


def raise_issues(issues: list[Issue], report: str) -> None:
    """Raise one ClientError for all issues, the first one first; `report` is the file that contains all of them."""
    if not issues:
        return
    first, *others = issues
    message = first.message
    if others:
        message += f" ({len(others)} more error{'s' if others[1:] else ''} below and in {report})"
    details = [detail for issue in issues for detail in issue.details]
    raise ClientError(message, [*(issue.message for issue in others), *details])


def list_values(statistics: ChannelStatistics, which: Mapping[int, int] | None = None) -> str:
    """List pixel values with their shares of all pixels, the most frequent first."""
    counts = statistics.values if which is None else which
    total = sum(statistics.values.values()) + sum(statistics.unusable_values.values()) * (which is statistics.wrong)
    listed = []
    for value in sorted(counts, key=lambda value: (-counts[value], value)):
        ignored = ", ignored" if value in statistics.ignored else ""
        listed.append(f"{statistics.show(value)} ({percent(counts[value] / max(1, total))}{ignored})")
    return shorten_list(listed, LISTED) or "none"


def percent(share: float | np.floating[Any]) -> str:
    """Format a share as a percentage. Small shares have one significant digit, so that they differ from 0."""
    hundredths = 100 * float(share)
    if hundredths >= 0.1 or not hundredths:
        return f"{hundredths:.1f}%"
    return f"{hundredths:.1g}%" if hundredths >= 0.0001 else "less than 0.0001%"


def summarize(errors: Sequence[Issue], warnings: Sequence[Issue], path: Path) -> str:
    """Return the number of errors and warnings, and the file that contains all of them."""
    counts = [
        f"{len(each)} {kind}{'s' if len(each) != 1 else ''}"
        for each, kind in ((errors, "error"), (warnings, "warning"))
    ]
    return f"{', '.join(counts)}; all details in {path}"


def draw_table(channels: Sequence[ChannelStatistics], names: Mapping[int, str]) -> list[str]:
    """Return the lines of a table with a column per channel, and a row per class with its share of labeled pixels."""
    labels = sorted({label for each in channels for label in each.classes})
    frequent = sorted(labels, key=lambda label: -max(int(each.labels[label]) for each in channels))[:_MOST_ROWS]
    rows = [["", *(each.channel for each in channels)]]
    rows.append(["pairs", *(_pairs(each) for each in channels)])
    rows.append(["width × height", *(f"{_range(each.widths)} × {_range(each.heights)}" for each in channels)])
    for label in sorted(frequent):
        title = f"class {label}" + (f" {names[label]}" if label in names else "")
        rows.append([title, *(percent(each.labels[label] / max(1, each.labeled)) for each in channels)])
    rows.append(["ignored pixels", *(percent(each.share(each.labels[IGNORE])) for each in channels)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        f"  {row[0]:<{widths[0]}}"
        + "".join(f"  {cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True))
        for row in rows
    ]
    return lines + ([f"  … {len(labels) - _MOST_ROWS} more classes"] if labels[_MOST_ROWS:] else [])


def _pairs(channel: ChannelStatistics) -> str:
    return str(channel.pairs) if channel.opened == channel.pairs else f"{channel.opened} of {channel.pairs}"


def _range(extremes: list[int]) -> str:
    return "–".join(map(str, dict.fromkeys(extremes)))
