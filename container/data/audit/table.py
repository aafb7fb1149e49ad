"""The table of the audit in the log."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from container.data.audit.issues import Issue, percent
from container.data.audit.statistics import ChannelStatistics
from container.data.labels.decoding import IGNORE

_MOST_ROWS = 40  # classes in the table


def summarize(errors: list[Issue], warnings: list[Issue], path: Path) -> str:
    """Count the faults in one line, and say where all of them are."""
    counts = [
        f"{len(each)} {kind}{'s' if len(each) != 1 else ''}"
        for each, kind in ((errors, "error"), (warnings, "warning"))
    ]
    return f"{', '.join(counts)}; all details in {path}"


def draw_table(findings: list[ChannelStatistics], names: Mapping[int, str]) -> list[str]:
    """Draw a column for each channel and a row for each class, with its share of the labeled pixels."""
    labels = sorted({label for each in findings for label in each.classes})
    frequent = sorted(labels, key=lambda label: -max(int(each.labels[label]) for each in findings))[:_MOST_ROWS]
    rows = [["", *(each.channel for each in findings)]]
    rows.append(["pairs", *(_pairs(each) for each in findings)])
    rows.append(["width × height", *(f"{_range(each.widths)} × {_range(each.heights)}" for each in findings)])
    for label in sorted(frequent):
        title = f"class {label}" + (f" {names[label]}" if label in names else "")
        rows.append([title, *(percent(each.labels[label] / max(1, each.labeled)) for each in findings)])
    rows.append(["ignored pixels", *(percent(each.share(each.labels[IGNORE])) for each in findings)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        f"  {row[0]:<{widths[0]}}"
        + "".join(f"  {cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True))
        for row in rows
    ]
    return lines + ([f"  … {len(labels) - _MOST_ROWS} more classes"] if labels[_MOST_ROWS:] else [])


def _pairs(findings: ChannelStatistics) -> str:
    return str(findings.pairs) if findings.opened == findings.pairs else f"{findings.opened} of {findings.pairs}"


def _range(extremes: list[int]) -> str:
    return "–".join(map(str, dict.fromkeys(extremes)))
