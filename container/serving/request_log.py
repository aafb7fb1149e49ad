"""What is told about requests: a line of log for each, and totals for Prometheus; nothing of their images."""

from __future__ import annotations

import contextlib
import json
import logging
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any, Literal

LOG = logging.getLogger("container.requests")

PHASES = ("read", "queue", "decode", "inference", "encode")


class Record:
    """One request as it passes through the server; `facts` are the fields of its line, durations in milliseconds."""

    def __init__(self, method: str, path: str) -> None:
        self.arrived = time.monotonic()
        self.facts: dict[str, Any] = {"method": method, "path": path}

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time the block, which may fail, as the phase of that name, or as another part of it."""
        start = time.monotonic()
        try:
            yield
        finally:
            self.facts[f"{name}_ms"] = round(self.facts.get(f"{name}_ms", 0) + _milliseconds(start), 1)

    def finish(self, status: int, sent: int | None) -> dict[str, Any]:
        """Return the line's fields, complete; `sent` are the bytes of the answer."""
        return {**self.facts, "status": status, "bytes_out": sent, "total_ms": _milliseconds(self.arrived)}


class Metrics:
    """Totals since the process began, in Prometheus' text format; each worker process has its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._statuses: Counter[int] = Counter()
        self._seconds: Counter[str] = Counter()
        self._counts: Counter[str] = Counter()

    def add(self, facts: dict[str, Any]) -> None:
        """Count one finished request."""
        with self._lock:
            self._statuses[facts["status"]] += 1
            for phase in PHASES:
                if (milliseconds := facts.get(f"{phase}_ms")) is not None:
                    self._seconds[phase] += milliseconds / 1000
                    self._counts[phase] += 1

    def render(self, waiting: int) -> str:
        """Return the text, with the number of requests that wait now."""
        with self._lock:
            lines = ["# TYPE requests_total counter"]
            lines += [f'requests_total{{status="{key}"}} {value}' for key, value in sorted(self._statuses.items())]
            lines += ["# TYPE requests_waiting gauge", f"requests_waiting {waiting}", "# TYPE phase_seconds summary"]
            for phase in PHASES:
                lines.append(f'phase_seconds_sum{{phase="{phase}"}} {self._seconds[phase]:.6f}')
                lines.append(f'phase_seconds_count{{phase="{phase}"}} {self._counts[phase]}')
        return "\n".join(lines) + "\n"


def write_line(facts: dict[str, Any], log_format: Literal["json", "text"] | str) -> None:
    """Write one request's line: JSON, or words for people."""
    if log_format == "json":
        LOG.info(json.dumps(facts, ensure_ascii=False))
    else:
        LOG.info(" ".join(f"{key}={value}" for key, value in facts.items()))


def _milliseconds(start: float) -> float:
    return round((time.monotonic() - start) * 1000, 1)
