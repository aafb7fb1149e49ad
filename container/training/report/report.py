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
    """Content of `report.json`, which is written at the start and after every entry."""

    def __init__(self, folder: Path, history: list[dict[str, Any]]) -> None:
        self._path = folder / REPORT
        self._content: dict[str, Any] = {"epochs": history, "failed": {}}
        self._write()

    def add(self, product: str, entry: dict[str, Any]) -> None:
        """Add a result."""
        self._content[product] = entry
        self._write()

    def fail(self, product: str, reason: str) -> None:
        """Add the reason why a result is missing."""
        self._content["failed"][product] = reason
        self._write()

    def _write(self) -> None:
        """Write the file; a disk error is logged, because it must not end the job."""
        try:
            model_directory.write_json(self._path, self._content)
        except PlatformError as error:
            LOG.error("The report is not complete: %s", error)
