"""Validation after an epoch: center crops or full images."""

from __future__ import annotations

import math
import time

from container import metrics
from container.arrays import Uint8Array
from container.cluster.hosts import Hosts
from container.data.batches import Batch
from container.data.full_images import LabeledImage
from container.data.loader import Loader
from container.hyperparameters import Hyperparameters
from container.metrics import ConfusionMatrix
from container.mx.trainer import Trainer
from container.training.metric_log import MetricLogger
from container.training.report.reporter import Reporter
from container.training.scoring.full_validation import validate_full_images

_LONG_SECONDS = 10.0


class Validation:
    """Scores the network on all hosts together, tells it, and shows the report what was predicted.

    `images` and `figures` (samples/s, seconds) are those of the last score.
    """

    def __init__(
        self, trainer: Trainer, job: Hyperparameters, hosts: Hosts, teller: MetricLogger, reporter: Reporter | None
    ) -> None:
        self._trainer = trainer
        self._job = job
        self._hosts = hosts
        self._teller = teller
        self._reporter = reporter
        self.images = 0
        self.figures: dict[str, float] = {}

    @property
    def is_long(self) -> bool:
        """Whether a stop is likely to come within the next score: the last one says how long it takes."""
        seconds = self.figures.get("validation_seconds")
        return self._job.validation == "full" if seconds is None else seconds >= _LONG_SECONDS

    def score(self, validation: Loader, epoch: int) -> ConfusionMatrix | None:
        """Score the network after an epoch; None when stopped: part of a set is no score."""
        start = time.time()
        if self._job.validation == "full":
            found = validate_full_images(
                self._trainer, validation, self._job, self._hosts, self._watch_whole if self._reporter else None
            )
        else:
            found = self._trainer.evaluate(
                self._hosts.synchronize_batches(validation.validation_epoch(), self._job.crop),
                self._job.num_classes,
                self._watch if self._reporter else None,
            )
        if self._hosts.stop.is_set() or found is None:
            return None
        score, images = found
        end = time.time()
        throughput = images / (end - start)
        self._teller.quality(epoch, "validation pixel_accuracy", score.pixel_accuracy)
        self._teller.quality(epoch, "validation mIOU", score.miou)
        self._teller.throughput(epoch, "validation", throughput)
        for label, iou in enumerate(score.iou().tolist()):
            if not math.isnan(iou):
                self._teller.quality(epoch, f"validation {metrics.class_name(label)}", iou)
        figures = {
            "validation_pixel_accuracy": score.pixel_accuracy,
            "validation_mIOU": score.miou,
            "validation_throughput": throughput,
        }
        self.images = images
        self.figures = {"validation_throughput": throughput, "validation_seconds": end - start}
        self._teller.summary("validation", epoch, start, end, figures)
        return score

    def _watch(self, batch: Batch, predictions: Uint8Array) -> None:
        assert self._reporter is not None
        self._reporter.watch(batch.names, batch.images, batch.labels, predictions)

    def _watch_whole(self, picture: LabeledImage, mask: Uint8Array) -> None:
        assert self._reporter is not None
        self._reporter.watch((picture.name,), picture.image[None], picture.labels[None], mask[None])
