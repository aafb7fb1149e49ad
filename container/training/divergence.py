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
    """The second try that `_on_divergence=retry` gives a job, once."""

    def __init__(self, trainer: Trainer, job: Hyperparameters, keeper: CheckpointManager, progress: Progress) -> None:
        self._trainer = trainer
        self._job = job
        self._keeper = keeper
        self._progress = progress
        self._return: dict[str, Any] | None = None  # the weights to go on from when there are no best ones yet

    @property
    def factor(self) -> float:
        """What the learning rate is multiplied with."""
        return RETRY_FACTOR if self._progress.lowered else 1.0

    @property
    def _wanted(self) -> bool:
        job = self._job
        return job.on_divergence == "retry" and job.sets_rate and not self._progress.lowered

    def prepare(self) -> None:
        """Remember, before an epoch, the weights that it begins with, where the job may have to return to them."""
        if self._wanted:
            self._return = None if self._progress.best else self._trainer.copy_weights()

    def begin(self, error: TrainingDivergedError, train: Loader) -> None:
        """Go back to the best weights, once, with a lower learning rate; raises the error where that is not wanted."""
        progress = self._progress
        if not self._wanted:
            raise error
        epoch = progress.epoch
        if best := progress.best:
            source = f"the best weights, those of epoch {best['epoch']}"
            self._keeper.return_to_best()
        else:
            source = "the weights that the epoch or this start began with: none are best yet"
            assert self._return is not None
            self._trainer.set_weights(self._return)
            self._keeper.restart()
        self._return = None
        train.rewind()
        progress.begin_again()
        LOG.error(
            "training diverged in epoch %d (%s). IT GOES ON, ONCE, FROM %s, WITH THE LEARNING RATE TIMES %g (%g "
            "instead of %g) from the beginning of that epoch (_on_divergence=retry)",
            epoch,
            error,
            source.upper(),
            RETRY_FACTOR,
            self._job.learning_rate * RETRY_FACTOR,
            self._job.learning_rate,
        )

    def end(self, error: TrainingDivergedError) -> None:
        """Keep the best model of a job that diverged late; raises ClientError when there is none."""
        epoch, best = self._progress.epoch, self._progress.best
        rate = f"{self._job.learning_rate}" + (f" times {RETRY_FACTOR}" if self._progress.lowered else "")
        remedy = f"lower learning_rate, which is {rate}"
        if not self._job.sets_rate:
            remedy = "take another optimizer than adadelta, which has no learning rate to lower"
        told = f"training diverged in epoch {epoch} ({error}): {remedy}"
        if best is None:
            raise ClientError(told) from error
        LOG.error("%s. THE JOB ENDS HERE, with the best weights, those of epoch %d, as its model", told, best["epoch"])
        self._keeper.last_is_best()
