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

_PLAIN = re.compile(r"[\w.:/+-]+", re.ASCII)  # what is no more than one word in a line of words
_TEXT_LENGTH = 1024


class Record:
    """One request as it passes through the server; `facts` are the fields of its line, durations in milliseconds."""

    def __init__(self, method: str, path: str) -> None:
        self.arrived = time.monotonic()
        now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="milliseconds")
        self.facts: dict[str, Any] = {"time": now, "worker": os.getpid(), "method": method, "path": clean(path)}

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time the block, which may fail, as the phase of that name or a part of it."""
        start = time.monotonic()
        try:
            yield
        finally:
            key = f"{name}_ms"
            self.facts[key] = round(self.facts.get(key, 0) + _milliseconds(start), 1)

    def seconds(self, *phases: str) -> float:
        """Return how long these phases have taken together."""
        return float(sum(self.facts.get(f"{name}_ms", 0) for name in phases)) / 1000

    def finish(self, status: int, sent: int | None) -> dict[str, Any]:
        """Return the line's fields, complete; `sent` are the bytes of the answer."""
        return {**self.facts, "status": status, "bytes_out": sent, "total_ms": _milliseconds(self.arrived)}


def clean(text: str) -> str:
    """Return what a client sent, in one line that any stream takes, and no longer than is useful."""
    return printable(text[:_TEXT_LENGTH])


def write_line(facts: dict[str, Any], log_format: Literal["json", "text"] | str) -> None:
    """Write one request's line: JSON, or words for people, where what is more than a word is quoted."""
    if log_format == "json":
        LOG.info(json.dumps(facts, ensure_ascii=False))
    else:
        LOG.info(" ".join(f"{key}={_word(value)}" for key, value in facts.items()))


def _word(value: object) -> str:
    text = str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=False)


def _milliseconds(start: float) -> float:
    return round((time.monotonic() - start) * 1000, 1)
