"""Log lines of an epoch, equal to those of the built-in algorithm."""

from __future__ import annotations

import logging

from tqdm import tqdm

from container import metrics
from container.cluster.hosts import Hosts

LOG = logging.getLogger(__name__)


class MetricLogger:
    """Tells what a job has found; hosts other than the first keep it among their own details."""

    def __init__(self, hosts: Hosts) -> None:
        self._host = hosts.name
        self._first = hosts.first
        self.log = LOG.info if hosts.first else LOG.debug

    def quality(self, epoch: int, name: str, value: float) -> None:
        """Tell a figure of an epoch."""
        self.log(metrics.quality_line(self._host, epoch, name, value))

    def throughput(self, epoch: int, operation: str, value: float) -> None:
        """Tell how many samples a second `train` or `validation` took."""
        self.log(metrics.throughput_line(self._host, epoch, operation, value))

    def progress(self, done: int, epochs: int) -> None:
        """Tell how many of the epochs are done."""
        self.log(metrics.progress_line(self._host, done, epochs))

    def summary(self, operation: str, epoch: int, start: float, end: float, figures: dict[str, float]) -> None:
        """Tell the figures of `training` or `validation`, from `start` to `end` (seconds since 1970), as JSON."""
        if self._first:
            tqdm.write(metrics.metrics_json(self._host, operation, epoch, start, end, figures))
