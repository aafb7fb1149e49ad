"""The audit: every pair of every channel opened once before training begins, and everything found told together.

In Pipe mode, or where it was left out, the findings grow during the first pass over each channel instead.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from container import artifacts
from container.data.class_names import known_classes
from container.data.findings import BadSample, Findings, Seen
from container.data.labels import IGNORE
from container.data.pairing import FileSample
from container.data.samples import FileSamples, Samples, decode_sample
from container.data.verdict import Fault, find_errors, find_warnings, percent, raise_faults
from container.environment import cpu_count
from container.errors import printable
from container.hyperparameters import Hyperparameters

LOG = logging.getLogger(__name__)

REPORT = "audit.json"

_MOST_FAULTS = 100  # unusable pairs of a stream, after which its pass need not go on
_MOST_ROWS = 40  # classes in the table
_FAST_SHARE, _FAST_LEAST = 50, 2  # pairs of which a fast audit decodes one, and at least how many it decodes


class Audit:
    """The findings on a job's channels, and what follows from them; `folder` is where audit.json goes."""

    def __init__(self, job: Hyperparameters, samples: Mapping[str, Samples], folder: Path) -> None:
        self._job = job
        self._samples = samples
        self._path = folder / REPORT
        self._findings = {
            channel: Findings(channel, each.label_map, job.num_classes, job.crop) for channel, each in samples.items()
        }
        self._modes: dict[str, str] = {}
        self._errors: list[Fault] = []
        self._told: set[str] = set()
        self._pending = set(samples)

    def run(self, mode: str, stop: threading.Event) -> None:
        """Audit the File channels as `mode` says (full, fast or off), and tell what was found.

        Raises one ClientError, the worst fault first; audit.json is written either way.
        """
        files = {name: each for name, each in self._samples.items() if isinstance(each, FileSamples)}
        start = time.monotonic()
        for channel, samples in files.items():
            self._findings[channel].pairs = len(samples.pairs)
            if mode != "off":
                self._modes[channel] = mode
                self._examine(channel, samples, mode, stop)
        if mode == "full" and not stop.is_set():
            self._pending -= files.keys()
        if files and mode != "off" and not stop.is_set():
            self._conclude(list(files), f"audit ({mode}, {time.monotonic() - start:.1f} s)", complete=mode == "full")

    def begin(self, channel: str) -> bool:
        """Say whether a pass that begins has to be watched: the channel's first one, when no audit has seen it whole."""
        if channel not in self._pending:
            return False
        fresh = Findings(channel, self._samples[channel].label_map, self._job.num_classes, self._job.crop)
        self._findings[channel] = fresh
        return True

    def watch(self, channel: str, seen: Seen) -> None:
        """Take in a pair of a first pass."""
        self._findings[channel].add(seen)

    def watch_bad(self, channel: str, error: BadSample) -> bool:
        """Take in an unusable pair of a first pass; returns whether the pass may go on."""
        findings = self._findings[channel]
        findings.add_bad(error)
        return len(findings.bad) <= self._job.max_bad_records or len(findings.bad) < _MOST_FAULTS

    def end(self, channel: str) -> None:
        """Judge a channel whose first pass is complete; raises ClientError as `run` does."""
        self._pending.discard(channel)
        self._modes[channel] = "first pass"
        self._findings[channel].pairs = self._findings[channel].opened
        self._conclude([channel], f"audit of channel {channel} (first pass)", complete=True)

    def _examine(self, channel: str, samples: FileSamples, mode: str, stop: threading.Event) -> None:
        findings, job = self._findings[channel], self._job
        pairs: Sequence[FileSample] = samples.pairs
        if mode == "fast":
            pairs = _spread(pairs, max(_FAST_LEAST, len(pairs) // _FAST_SHARE))

        def examine(sample: FileSample) -> None:
            if not stop.is_set():
                try:
                    findings.add(
                        decode_sample(
                            sample, samples.label_map, job.num_classes, job.exif_orientation, digest=True
                        ).seen
                    )
                except BadSample as error:
                    findings.add_bad(error)

        with ThreadPoolExecutor(cpu_count(), thread_name_prefix="audit") as pool:
            for _ in tqdm(_results(pool, examine, pairs), f"audit {channel}", len(pairs), leave=False, disable=None):
                pass

    def _conclude(self, channels: Sequence[str], title: str, complete: bool) -> None:
        judged = {channel: self._findings[channel] for channel in self._findings if self._modes.get(channel)}
        names = self._names()
        budget = self._job.max_bad_records
        errors = find_errors({channel: self._findings[channel] for channel in channels}, budget)
        if not complete:  # a sample shows what is broken, not what is absent
            errors = [fault for fault in errors if fault.kind not in ("classes", "label map")]
        warnings = find_warnings(judged, names, budget) if complete else []
        self._errors += errors
        self._write(judged, names, warnings)
        LOG.info("%s: %s", title, _summary(errors, warnings, self._path))
        for line in _table([judged[channel] for channel in channels], names):
            LOG.info("%s", line)
        for fault in [*warnings, *errors]:
            self._tell(fault, LOG.warning if fault in warnings else LOG.error)
        raise_faults(errors, f"output/data/{REPORT}")

    def _tell(self, fault: Fault, log: Any) -> None:
        if fault.message in self._told:
            return
        self._told.add(fault.message)
        log("%s", printable(fault.message))
        for detail in fault.details[:_MOST_ROWS]:
            log("  %s", printable(detail))
        if fault.details[_MOST_ROWS:]:
            log("  and %d more, all of them in %s", len(fault.details) - _MOST_ROWS, self._path)

    def _names(self) -> dict[int, str]:
        """Call the classes as the first channel that knows them does."""
        names: dict[int, str] = {}
        for samples in self._samples.values():
            for label, entry in known_classes(samples, self._job.num_classes).items():
                if entry.name is not None:
                    names.setdefault(label, entry.name)
        return names

    def _write(self, judged: Mapping[str, Findings], names: Mapping[int, str], warnings: list[Fault]) -> None:
        artifacts.write_json(
            self._path,
            {
                "errors": [fault.as_dict() for fault in self._errors],
                "warnings": [fault.as_dict() for fault in warnings],
                "channels": {
                    channel: {"mode": self._modes[channel], **findings.as_dict(names)}
                    for channel, findings in judged.items()
                },
            },
        )


def _spread(pairs: Sequence[FileSample], count: int) -> list[FileSample]:
    """Choose `count` pairs, evenly spread over the order of their names."""
    return [pairs[index] for index in sorted({round(place) for place in np.linspace(0, len(pairs) - 1, count)})]


def _results(pool: ThreadPoolExecutor, work: Any, items: Sequence[FileSample]) -> Iterator[None]:
    """Do the work in the pool's threads, with a bounded number of items waiting."""
    size = 256
    for start in range(0, len(items), size):
        yield from pool.map(work, items[start : start + size])


def _summary(errors: list[Fault], warnings: list[Fault], path: Path) -> str:
    counts = [
        f"{len(each)} {kind}{'s' if len(each) != 1 else ''}"
        for each, kind in ((errors, "error"), (warnings, "warning"))
    ]
    return f"{', '.join(counts)}; all details in {path}"


def _table(findings: list[Findings], names: Mapping[int, str]) -> list[str]:
    """Draw a column for each channel and a row for each class, with its share of the labelled pixels."""
    labels = sorted({label for each in findings for label in each.classes})
    frequent = sorted(labels, key=lambda label: -max(int(each.labels[label]) for each in findings))[:_MOST_ROWS]
    rows = [["", *(each.channel for each in findings)]]
    rows.append(["pairs", *(_pairs(each) for each in findings)])
    rows.append(["width × height", *(f"{_range(each.widths)} × {_range(each.heights)}" for each in findings)])
    for label in sorted(frequent):
        title = f"class {label}" + (f" {names[label]}" if label in names else "")
        rows.append([title, *(percent(each.labels[label] / max(1, each.labelled)) for each in findings)])
    rows.append(["ignored pixels", *(percent(each.share(each.labels[IGNORE])) for each in findings)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        f"  {row[0]:<{widths[0]}}"
        + "".join(f"  {cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True))
        for row in rows
    ]
    return lines + ([f"  … {len(labels) - _MOST_ROWS} more classes"] if labels[_MOST_ROWS:] else [])


def _pairs(findings: Findings) -> str:
    return str(findings.pairs) if findings.opened == findings.pairs else f"{findings.opened} of {findings.pairs}"


def _range(extremes: list[int]) -> str:
    return "–".join(map(str, dict.fromkeys(extremes)))
