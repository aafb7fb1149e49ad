"""Log lines of a job, equal to those of the built-in algorithm."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterable, Iterator, Mapping

from tqdm import tqdm

from container import hyperparameters, metrics
from container.cluster.hosts import Hosts
from container.data.batches import Batch
from container.environment import Environment
from container.hyperparameters import Hyperparameters
from container.schema import SCHEMA_PATH, read_schema

LOG = logging.getLogger(__name__)


def load_hyperparameters(environment: Environment, streamed: bool) -> Hyperparameters:
    """Return the validated hyperparameters of the job, and log them: the defaults, the given ones, and the result."""
    properties = read_schema()["properties"].items()
    defaults = {name: entry["default"] for name, entry in properties if entry.get("default") is not None}
    given = environment.root / "input" / "config" / "hyperparameters.json"
    LOG.info("Reading default configuration from %s: %s", SCHEMA_PATH, hyperparameters.as_request(defaults))
    LOG.info("Merging with provided configuration from %s: %s", given, json.dumps(environment.hyperparameters))
    job = hyperparameters.load(environment.hyperparameters, streamed)
    final = job.as_dict()
    if not job.num_training_samples:  # the samples are counted later
        del final["num_training_samples"]
    LOG.info("Final configuration: %s", hyperparameters.as_request(final))
    if not environment.checkpoint_dir.is_dir():
        LOG.info("Checkpoint loading and saving are disabled.")
    return job


def log_end(environment: Environment, epochs: int, training_started: float) -> None:
    """Log the last lines of a job; `training_started` is the end of its setup, in seconds since 1970."""
    if "test" not in environment.channels:
        LOG.info("Test data is not provided.")
    start, end = environment.started, time.time()
    values = {"epochs": epochs, "totaltime": 1000 * (end - start), "setuptime": 1000 * (training_started - start)}
    dimensions = metrics.dimensions(environment.current_host, "training")
    tqdm.write(metrics.metrics_json(dimensions, start, end, values))


class MetricLogger:
    """Logger of the metrics of a job. Hosts other than the first log them at the debug level."""

    def __init__(self, hosts: Hosts) -> None:
        self._host = hosts.name
        self._first = hosts.first
        self.log = LOG.info if hosts.first else LOG.debug
        self._passes: list[tuple[int, int]] = []  # batches and records of each epoch that this process has trained

    def quality(self, epoch: int, name: str, value: float) -> None:
        """Log a metric of an epoch."""
        self.log(metrics.quality_line(self._host, epoch, name, value))

    def throughput(self, epoch: int, operation: str, value: float) -> None:
        """Log the samples per second of `train` or `validation`."""
        self.log(metrics.throughput_line(self._host, epoch, operation, value))

    def progress(self, done: int, epochs: int) -> None:
        """Log how many epochs are complete."""
        self.log(metrics.progress_line(self._host, done, epochs))

    def notices(self, epoch: int, frequency: int, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Yield the batches of a validation, and log the speed after every `frequency` batches."""
        since, images = time.perf_counter(), 0
        for iterations, batch in enumerate(batches, 1):
            yield batch
            images += batch.size
            if iterations % frequency == 0:
                now = time.perf_counter()
                self.log(metrics.notice_line(epoch, iterations, images / (now - since)))
                since, images = now, 0

    def begin(self) -> None:
        """Log the counts of the training data before the first batch, all 0."""
        now = time.time()
        values = metrics.iterator_counts(self._passes)
        self._write(now, now, values, metrics.dimensions(self._host, "training", meta="init_train_data_iter"))

    def training(
        self, epoch: int, start: float, end: float, seen: tuple[int, int], values: Mapping[str, float]
    ) -> None:
        """Log `values` and the counts of the training data as JSON; `seen` is the batches and records of the epoch."""
        self._passes.append(seen)
        dimensions = metrics.dimensions(self._host, "training", epoch, "training_data_iter")
        self._write(start, end, {**metrics.iterator_counts(self._passes), **values}, dimensions)

    def validation(self, epoch: int, start: float, end: float, values: Mapping[str, float]) -> None:
        """Log the metrics of a validation as JSON; times are seconds since 1970."""
        self._write(start, end, values, metrics.dimensions(self._host, "validation", epoch))

    def _write(
        self, start: float, end: float, values: Mapping[str, float], dimensions: Mapping[str, str | int]
    ) -> None:
        if self._first:
            tqdm.write(metrics.metrics_json(dimensions, start, end, values))
