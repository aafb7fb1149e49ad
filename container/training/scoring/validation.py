"""Validation after an epoch: center crops, or full images (`_validation=full`)."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable

import numpy as np

from container import metrics
from container.arrays import Uint8Array
from container.cluster.hosts import Hosts
from container.data.batches import Batch
from container.data.full_images import LabeledImage
from container.data.loader import Loader
from container.errors import ClientError
from container.hyperparameters import Hyperparameters
from container.metrics import ConfusionMatrix
from container.mx.inference.evaluation import MXNetEvaluator, without_autotuning
from container.mx.trainer import Trainer
from container.training.metric_log import MetricLogger
from container.training.report.reporter import Reporter
from container.training.scoring.evaluation import EvaluationResult, evaluate
from container.training.scoring.evaluators import largest_final_image

LOG = logging.getLogger(__name__)

_LONG_SECONDS = 10.0


class Validation:
    """Validation of the model on all hosts, with log lines, and images for the report.

    `images` and `values` (samples/s, seconds) are those of the last validation.
    """

    def __init__(
        self, trainer: Trainer, job: Hyperparameters, hosts: Hosts, logger: MetricLogger, reporter: Reporter | None
    ) -> None:
        self._trainer = trainer
        self._job = job
        self._hosts = hosts
        self._logger = logger
        self._reporter = reporter
        self.images = 0
        self.values: dict[str, float] = {}

    @property
    def is_long(self) -> bool:
        """Whether the job can be stopped during the next validation, judged by the duration of the last one."""
        seconds = self.values.get("validation_seconds")
        return self._job.validation == "full" if seconds is None else seconds >= _LONG_SECONDS

    def score(self, validation: Loader, epoch: int) -> ConfusionMatrix | None:
        """Evaluate the model after an epoch; None if the job is stopped, because part of a channel has no metrics."""
        start = time.time()
        if self._job.validation == "full":
            result = validate_full_images(
                self._trainer, validation, self._job, self._hosts, self._watch_image if self._reporter else None
            )
        else:
            batches = self._hosts.synchronize_batches(validation.validation_epoch(), self._job.crop)
            result = self._trainer.evaluate(
                self._logger.notices(epoch, self._job.logging_frequency, batches),
                self._job.num_classes,
                self._watch if self._reporter else None,
            )
        if self._hosts.stop.is_set() or result is None:
            return None
        confusion, images = result
        end = time.time()
        throughput = images / (end - start)
        self._logger.quality(epoch, "validation pixel_accuracy", confusion.pixel_accuracy)
        self._logger.quality(epoch, "validation mIOU", confusion.miou)
        self._logger.throughput(epoch, "validation", throughput)
        for label, iou in enumerate(confusion.iou().tolist()):
            if not math.isnan(iou):
                self._logger.quality(epoch, f"validation {metrics.class_name(label)}", iou)
        values = {
            "validation_pixel_accuracy": confusion.pixel_accuracy,
            "validation_mIOU": confusion.miou,
            "validation_throughput": throughput,
        }
        self.images = images
        self.values = {"validation_throughput": throughput, "validation_seconds": end - start}
        self._logger.validation(epoch, start, end, values)
        return confusion

    def _watch(self, batch: Batch, predictions: Uint8Array) -> None:
        assert self._reporter is not None
        self._reporter.watch(batch.names, batch.images, batch.labels, predictions)

    def _watch_image(self, image: LabeledImage, mask: Uint8Array) -> None:
        assert self._reporter is not None
        self._reporter.watch((image.name,), image.image[None], image.labels[None], mask[None])


def validate_full_images(
    trainer: Trainer,
    loader: Loader,
    job: Hyperparameters,
    hosts: Hosts,
    watch: Callable[[LabeledImage, Uint8Array], None] | None = None,
) -> tuple[ConfusionMatrix, int] | None:
    """Evaluate the model on all full images that fit in memory; returns their metrics and number, or None if stopped.

    Every host evaluates its share and returns the metrics of all hosts. Raises the errors of the channel, and
    ClientError if a host skips more than `_max_bad_records` unusable images, or if no host evaluated an image.
    """
    with trainer.evaluated_weights(), without_autotuning():
        most = largest_final_image(trainer.network)
        evaluator = MXNetEvaluator(trainer.network, trainer.devices, hosts.stop_requested, most)
        result = evaluate(loader, evaluator, job.num_classes, hosts.stop_requested, watch, sharded=True)
    if not result.cancelled:
        if result.failure:
            raise result.failure
        _check_unusable_images(result, job.max_bad_records)
    if hosts.agree_to_stop():
        return None
    confusion = result.confusions[0]
    evaluated, skipped, *counts = hosts.sum_integers(
        len(result.evaluated), len(result.skipped), *map(int, confusion.counts.flat)
    )
    confusion.counts[:] = np.reshape(counts, confusion.counts.shape)
    if not evaluated:
        reason = f" ({result.skipped[0]})" if result.skipped else ""
        raise ClientError(
            f"no image of channel validation could be evaluated at full resolution{reason}. Use smaller images, choose "
            "a larger instance, or set _validation=crop."
        )
    if skipped:
        LOG.warning(
            "The validation covers %d of %d images. The warnings above list the others.", evaluated, evaluated + skipped
        )
    return confusion, evaluated


def _check_unusable_images(result: EvaluationResult, limit: int) -> None:
    """Raise ClientError if more than `limit` images are unusable; images that are too large do not count."""
    unusable = [skipped for skipped in result.skipped if not skipped.too_large]
    if len(unusable) > limit:
        name, reason = unusable[-1].name, unusable[-1].reason
        raise ClientError(reason if name in reason else f"{name}: {reason}. Replace or remove the file.")
