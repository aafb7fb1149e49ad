"""The request log."""

from __future__ import annotations

import contextlib
import datetime
import json
import logging
import os
import re
import time
from collections.abc import Iterator
from typing import Any, Literal

from container.errors import printable

LOG = logging.getLogger("container.requests")

PHASES = ("read", "queue", "decode", "inference", "encode", "compress", "send")

_WORD = re.compile(r"[\w.:/+-]+", re.ASCII)  # values that need no quotes in the text format
_TEXT_LENGTH = 1024


class RequestRecord:
    """The log line of one request; durations in `fields` are in milliseconds."""

    def __init__(self, method: str, path: str) -> None:
        self.arrived = time.monotonic()
        now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="milliseconds")
        self.fields: dict[str, Any] = {"time": now, "worker": os.getpid(), "method": method, "path": clean(path)}

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the time of the block, also if it fails, to the phase."""
        start = time.monotonic()
        try:
            yield
        finally:
            key = f"{name}_ms"
            self.fields[key] = round(self.fields.get(key, 0) + _milliseconds(start), 1)

    def seconds(self, *phases: str) -> float:
        """Return the total time of these phases."""
        return float(sum(self.fields.get(f"{name}_ms", 0) for name in phases)) / 1000

    def finish(self, status: int, length: int | None) -> dict[str, Any]:
        """Return all fields of the line; `length` is the number of bytes of the response."""
        return {**self.fields, "status": status, "bytes_out": length, "total_ms": _milliseconds(self.arrived)}


def clean(text: str) -> str:
    """Return text from a client, shortened, and in one line that any stream accepts."""
    return printable(text[:_TEXT_LENGTH])


def write_line(fields: dict[str, Any], log_format: Literal["json", "text"] | str) -> None:
    """Write the log line of one request, in JSON or as human-readable `key=value` text."""
    if log_format == "json":
        LOG.info(json.dumps(fields, ensure_ascii=False))
    else:
        LOG.info(" ".join(f"{key}={_quote(value)}" for key, value in fields.items()))


def _quote(value: object) -> str:
    text = str(value)
    return text if _WORD.fullmatch(text) else json.dumps(text, ensure_ascii=False)


def _milliseconds(start: float) -> float:
    return round((time.monotonic() - start) * 1000, 1)
