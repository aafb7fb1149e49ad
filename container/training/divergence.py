"""Handling of a job that diverges: retry with a lower learning rate, or stop."""

from __future__ import annotations

import logging
from typing import Any

from container.data.loader import Loader
from container.errors import ClientError
from container.hyperparameters import Hyperparameters
from container.mx.replicas import TrainingDivergedError
from container.mx.trainer import Trainer
from container.training.checkpoints.manager import CheckpointManager
from container.training.checkpoints.progress import Progress

LOG = logging.getLogger(__name__)

RETRY_FACTOR = 0.1  # of the learning rate after training has diverged


class DivergenceHandler:
    """Retry with a lower learning rate, once, if the job sets `_on_divergence=retry`."""

    def __init__(
        self, trainer: Trainer, job: Hyperparameters, checkpoints: CheckpointManager, progress: Progress
    ) -> None:
        self._trainer = trainer
        self._job = job
        self._checkpoints = checkpoints
        self._progress = progress
        self._initial_weights: dict[str, Any] | None = None  # to return to while there are no best weights

    @property
    def factor(self) -> float:
        """Factor of the learning rate."""
        return RETRY_FACTOR if self._progress.lowered else 1.0

    @property
    def _can_retry(self) -> bool:
        job = self._job
        return job.on_divergence == "retry" and job.sets_rate and not self._progress.lowered

    def prepare(self) -> None:
        """Copy the weights before an epoch, if the job can have to return to them."""
        if self._can_retry:
            self._initial_weights = None if self._progress.best else self._trainer.copy_weights()

    def retry(self, error: TrainingDivergedError, train: Loader) -> None:
        """Return to the best weights with a lower learning rate; raises `error` if the job must not retry."""
        progress = self._progress
        if not self._can_retry:
            raise error
        epoch = progress.epoch
        if best := progress.best:
            source = f"the best weights, those of epoch {best['epoch']}"
            self._checkpoints.return_to_best()
        else:
            source = "the weights that the epoch or this start began with: none are best yet"
            assert self._initial_weights is not None
            self._trainer.set_weights(self._initial_weights)
            self._checkpoints.restart()
        self._initial_weights = None
        train.rewind()
        progress.begin_again()
        LOG.error(
            "training diverged in epoch %d (%s). The job retries once from %s, with the learning rate times %g (%g "
            "instead of %g) from the beginning of that epoch (_on_divergence=retry)",
            epoch,
            error,
            source,
            RETRY_FACTOR,
            self._job.learning_rate * RETRY_FACTOR,
            self._job.learning_rate,
        )

    def finish(self, error: TrainingDivergedError) -> None:
        """Use the best model so far as the result of the job; raises ClientError if no model was saved."""
        epoch, best = self._progress.epoch, self._progress.best
        rate = f"{self._job.learning_rate}" + (f" times {RETRY_FACTOR}" if self._progress.lowered else "")
        remedy = f"lower learning_rate, which is {rate}"
        if not self._job.sets_rate:
            remedy = "take another optimizer than adadelta, which has no learning rate to lower"
        message = f"training diverged in epoch {epoch} ({error}): {remedy}"
        if best is None:
            raise ClientError(message) from error
        LOG.error("%s. The job ends. Its model has the best weights, those of epoch %d", message, best["epoch"])
        self._checkpoints.copy_best_to_last()
