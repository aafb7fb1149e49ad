"""TensorBoard event files."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from container.artifact.classes import ClassEntry
from container.training.report.content import ExampleImage
from container.training.report.images import class_palette, draw_strip

LOG = logging.getLogger(__name__)


class EventFiles:
    """Writer of one event file in `folder`. After a disk error, it logs the error once and stops writing.

    The standard writer of tensorboardX queues events for a thread and blocks forever after a disk error. The report has
    a separate thread, so this class uses the low-level writer.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer: Any = None
        self._failed = False

    def write_metrics(self, step: int, metrics: Mapping[str, float | None]) -> None:
        """Write values by tag; values that are None are skipped."""
        from tensorboardX import summary

        self._write(step, [summary.scalar(tag, value) for tag, value in metrics.items() if value is not None])

    def write_examples(
        self, step: int, tag: str, examples: Sequence[ExampleImage], classes: Mapping[int, ClassEntry]
    ) -> None:
        """Write examples as `tag`/1, `tag`/2, …: image, annotation, prediction, and errors next to each other."""
        from tensorboardX import summary

        palette = class_palette(classes)
        drawn = [draw_strip(example, palette) for example in examples]
        self._write(
            step, [summary.image(f"{tag}/{i}", strip, dataformats="HWC") for i, strip in enumerate(drawn, start=1)]
        )

    def close(self) -> None:
        """Close the file if it is open."""
        if self._writer is not None and not self._failed:
            self._writer.close()

    def _write(self, step: int, summaries: Sequence[Any]) -> None:
        """Append the summaries and flush the file, so that TensorBoard shows them immediately."""
        if self._failed or not summaries:
            return
        from tensorboardX.proto.event_pb2 import Event

        try:
            writer = self._open()
            for each in summaries:
                writer.write_event(Event(wall_time=time.time(), step=step, summary=each))
            writer.flush()
        except OSError as error:
            self._failed = True
            LOG.error("TensorBoard event file in %s cannot be written. It has no more events: %s", self._folder, error)

    def _open(self) -> Any:
        if self._writer is None:
            from tensorboardX.event_file_writer import EventsWriter

            self._folder.mkdir(parents=True, exist_ok=True)
            self._writer = EventsWriter(str(self._folder / "events"), f".{os.getpid()}")
        return self._writer
