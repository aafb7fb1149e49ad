"""Writing of report, metrics, and event files during a job, in a separate thread."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from container.arrays import Int64Array, Uint8Array
from container.artifact import model_directory
from container.data.loader import Loader
from container.environment import Environment
from container.hyperparameters import Hyperparameters
from container.training.report.content import Content, EvaluationSummary
from container.training.report.event_files import EventFiles
from container.training.report.example_images import ExampleImages
from container.training.report.job_config import configuration, sources, versions
from container.training.report.page import EPOCHS, PAGE, render_epochs, render_page
from container.training.report.report import Report

LOG = logging.getLogger(__name__)

_AUDIT = "audit.json"
_WAITING = 4  # batches in the queue
_NICENESS = 19  # lowest priority, so that training is not slower
_SLICE_SECONDS = 0.1  # interval at which a wait checks that the thread runs


class Reporter:
    """Writer of the report of a job. Errors are logged, and never end the job."""

    def __init__(
        self, environment: Environment, job: Hyperparameters, loaders: Mapping[str, Loader], devices: str
    ) -> None:
        self._folder = environment.output_data_dir
        self._job = job
        self._loaders = loaders
        folder = environment.root / "output" / "tensorboard"
        self._events = EventFiles(folder) if job.tensorboard or folder.is_dir() else None
        self.seconds: dict[str, float] = {}  # by phase
        self._details = {
            "Configuration": configuration(job),
            "Inputs": sources(environment, loaders),
            "Devices": {"devices": devices},
            "Versions": versions(),
        }
        self._settings = job.as_dict()
        self._title = environment.job_name or "Training job"
        self.images_root = environment.root / "input" / "data"
        self._example_images = ExampleImages(job.num_classes, self.images_root)
        self._scored: EvaluationSummary | None = None
        self._best = -1.0
        self._history: list[dict[str, Any]] = []
        self._failed = False
        self._tasks: queue.Queue[Callable[[], None] | None] = queue.Queue(_WAITING)
        self._thread = threading.Thread(target=self._work, name="report", daemon=True)
        self._thread.start()

    def iteration(self, step: int, metrics: Mapping[str, float]) -> None:
        """Show values of an iteration, only in TensorBoard; `step` is counted from the start of the job."""
        if events := self._events:
            named = {f"iteration/{name}": value for name, value in metrics.items()}
            self._do(lambda: events.write_metrics(step, named))

    def watch(self, names: Sequence[str], images: Uint8Array, labels: Uint8Array, predictions: Uint8Array) -> None:
        """Add validation crops and their predictions, arrays of (N, H, W), to the example images."""

        def look() -> None:
            for each in zip(names, images, labels, predictions, strict=True):
                self._example_images.add(*each)

        self._do(look)

    def epoch(self, history: Sequence[Mapping[str, Any]], confusion: Int64Array | None, images: int) -> None:
        """Show a complete epoch, the last of `history`, with the images that were added after the previous epoch.

        `confusion` is None for an epoch without validation.
        """
        entries = [dict(entry) for entry in history]
        self._do(lambda: self._show_epoch(entries, confusion, images))

    def finish(self, scored: EvaluationSummary) -> None:
        """Show the metrics of full images instead of the metrics of an epoch."""

        def show() -> None:
            self._scored = scored
            self._write(f"evaluation is complete: {self._progress()}")
            if self._events:
                self._events.write_examples(len(self._history), "worst/whole", scored.worst, self._classes())

        self._do(show)

    def wait(self) -> None:
        """Wait until all tasks in the queue are complete."""
        done = threading.Event()
        self._do(done.set)
        while self._thread.is_alive() and not done.wait(_SLICE_SECONDS):
            pass

    def end(self, history: Sequence[Mapping[str, Any]], state: str) -> None:
        """Write the final report, and wait until it is complete."""
        entries = [dict(entry) for entry in history]

        def show() -> None:
            self._history = entries
            self._write(f"{state}: {self._progress()}")
            if self._events:
                self._events.close()

        self._do(show)
        self._do(None)
        self._thread.join()

    def _show_epoch(self, history: list[dict[str, Any]], confusion: Int64Array | None, images: int) -> None:
        entry = history[-1]
        self._history = history
        seen = None if confusion is None else self._summarize_epoch(confusion, images, entry)
        Report(self._folder, history)
        self._write(f"training: {self._progress()}")
        if self._events:
            metrics = {f"epoch/{name}": value for name, value in entry.items() if name != "epoch"}
            self._events.write_metrics(entry["epoch"], metrics)
            if seen:
                self._events.write_examples(entry["epoch"], "worst", seen.worst, self._classes())

    def _summarize_epoch(self, confusion: Int64Array, images: int, entry: Mapping[str, Any]) -> EvaluationSummary:
        """Return the summary of the validation of an epoch. The page shows the summary of the best epoch."""
        example_images = self._example_images
        self._example_images = ExampleImages(self._job.num_classes, self.images_root)
        kind = "full validation images" if self._job.validation == "full" else "validation crops"
        size = "" if self._job.validation == "full" else f" of {self._job.crop}×{self._job.crop}"
        seen = example_images.scored(f"{images} {kind}{size} in epoch {entry['epoch']}", confusion, images)
        if self._scored is None or entry["mIOU"] > self._best:
            self._scored, self._best = seen, entry["mIOU"]
        return seen

    def _progress(self) -> str:
        return f"{len(self._history)} of {self._job.epochs} epochs are complete"

    def _classes(self) -> Any:
        return self._loaders["train"].classes

    def _write(self, state: str) -> None:
        times = {"training": "train_seconds", "validation": "validation_seconds"}
        seconds = {name: sum(entry.get(key) or 0.0 for entry in self._history) for name, key in times.items()}
        shown = {name: f"{value:.1f}" for name, value in {**seconds, **self.seconds}.items() if value}
        content = Content(
            title=self._title,
            num_classes=self._job.num_classes,
            classes=self._classes(),
            state=state,
            history=self._history,
            epochs=self._job.epochs,
            scored=self._scored,
            audit=_read(self._folder / _AUDIT),
            details={**self._details, "Seconds": shown},
            failed=(_read(self._folder / "report.json") or {}).get("failed", {}),
            settings=self._settings,
        )
        model_directory.write_bytes(self._folder / PAGE, render_page(content).encode())
        model_directory.write_bytes(self._folder / EPOCHS, render_epochs(self._history).encode())

    def _do(self, task: Callable[[], None] | None) -> None:
        """Add a task to the queue; waits while the queue is full, to limit the memory."""
        while self._thread.is_alive():
            with contextlib.suppress(queue.Full):
                return self._tasks.put(task, timeout=_SLICE_SECONDS)

    def _work(self) -> None:
        with contextlib.suppress(OSError):  # on Linux, each thread has a separate niceness
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
        while (task := self._tasks.get()) is not None:
            try:
                task()
            except Exception as error:
                if not self._failed:
                    LOG.exception("The report could not be written. The job continues without it: %s", error)
                self._failed = True


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):  # the file does not exist or is incomplete
        return None
