"""`report.json`."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from container.artifact import model_directory
from container.errors import PlatformError

LOG = logging.getLogger(__name__)

REPORT = "report.json"


class Report:
    """The report as it grows; it is on the disk from the beginning, and again after every entry."""

    def __init__(self, folder: Path, history: list[dict[str, Any]]) -> None:
        self._path = folder / REPORT
        self._content: dict[str, Any] = {"epochs": history, "failed": {}}
        self._write()

    def add(self, product: str, entry: dict[str, Any]) -> None:
        """Enter what was found."""
        self._content[product] = entry
        self._write()

    def fail(self, product: str, reason: str) -> None:
        """Enter why a product is missing."""
        self._content["failed"][product] = reason
        self._write()

    def _write(self) -> None:
        """Write it; a disk that refuses is told of, and does not cost the job its weights."""
        try:
            model_directory.write_json(self._path, self._content)
        except PlatformError as error:
            LOG.error("the report is not complete: %s", error)
