"""A data error with its cause and fix, and how several are combined in one message."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from container.data.audit.statistics import ChannelStatistics
from container.errors import ClientError

LISTED = 10  # values or classes within one sentence


@dataclasses.dataclass(frozen=True)
class Issue:
    """One thing that is wrong or odd: cause and remedy, and the files or values that it is about."""

    kind: str
    message: str
    details: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Describe it for audit.json."""
        return {"kind": self.kind, "message": self.message, "details": list(self.details)}


def raise_faults(faults: list[Issue], told: str) -> None:
    """Raise one ClientError for all faults, the first of them first; `told` says where all of them are listed."""
    if not faults:
        return
    first, *others = faults
    message = first.message
    if others:
        message += f" ({len(others)} more fault{'s' if others[1:] else ''} below and in {told})"
    details = [detail for fault in faults for detail in fault.details]
    raise ClientError(message, [*(fault.message for fault in others), *details])


def list_values(findings: ChannelStatistics, which: Mapping[int, int] | None = None) -> str:
    """List pixel values with their shares of all pixels seen, the most frequent first."""
    counts = findings.values if which is None else which
    total = sum(findings.values.values()) + sum(findings.bad_values.values()) * (which is findings.wrong)
    ordered = sorted(counts, key=lambda value: (-counts[value], value))
    listed = []
    for value in ordered[:LISTED]:
        ignored = ", ignored" if value in findings.ignored else ""
        listed.append(f"{findings.show(value)} ({percent(counts[value] / max(1, total))}{ignored})")
    return ", ".join(listed) + (f" and {len(ordered) - LISTED} more" if ordered[LISTED:] else "") or "none"


def percent(share: float | np.floating[Any]) -> str:
    """Write a share with as many digits as tell it from nothing."""
    hundredths = 100 * float(share)
    if hundredths >= 0.1 or not hundredths:
        return f"{hundredths:.1f} %"
    return f"{hundredths:.1g} %" if hundredths >= 0.0001 else "under 0.0001 %"
