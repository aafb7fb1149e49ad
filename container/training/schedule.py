"""Learning rate schedules and early stopping."""

from __future__ import annotations

import logging
import math

from container.hyperparameters import Hyperparameters

LOG = logging.getLogger(__name__)

_POLY_POWER = 0.9


def learning_rate(hyperparameters: Hyperparameters, position: float) -> float:
    """Return the learning rate at `position`, in epochs (2.5 is the middle of the third).

    poly: (1 − p)^0.9; cosine: (1 + cos πp) / 2, p being the share of the job that is done;
    step: `lr_scheduler_factor` for every epoch of `lr_scheduler_step` that is reached.
    """
    base = hyperparameters.learning_rate
    if hyperparameters.lr_scheduler == "step":
        reached = sum(position >= epoch for epoch in hyperparameters.steps)
        return base * math.pow(hyperparameters.lr_scheduler_factor, reached)
    share = min(1.0, position / hyperparameters.epochs)
    if hyperparameters.lr_scheduler == "cosine":
        return base * (1 + math.cos(math.pi * share)) / 2
    return base * math.pow(1 - share, _POLY_POWER)


def warmed_up(hyperparameters: Hyperparameters, step: int) -> float:
    """Return the share of the learning rate that step `step` of the job, counted from 0, has: 1 after the warm-up."""
    return min(1.0, (step + 1) / max(1, hyperparameters.warmup_iterations))


def explain_schedule(job: Hyperparameters, iterations: int) -> None:
    """Log, once a job, which settings cannot do what they say in epochs of so many iterations."""
    if job.warmup_iterations > iterations * job.epochs and job.sets_rate:
        LOG.warning(
            "_warmup_iterations=%d is more than the %d iterations of all %d epochs: learning_rate is never reached; "
            "lower it",
            job.warmup_iterations,
            iterations * job.epochs,
            job.epochs,
        )
    if job.accumulate > iterations:
        LOG.warning(
            "_accumulate=%d is more than the %d iterations of an epoch, at whose end the weights are always updated; "
            "lower it",
            job.accumulate,
            iterations,
        )
    scores, needed = (job.epochs - 1) // job.validation_interval, max(1, job.early_stopping_patience) + 1
    last = scores * job.validation_interval
    if job.early_stopping and last < job.early_stopping_min_epochs:
        LOG.warning(
            "early_stopping has no effect: the last score before the last epoch is that of epoch %d of %d, and "
            "early_stopping_min_epochs is %d; raise epochs, or lower early_stopping_min_epochs",
            last,
            job.epochs,
            job.early_stopping_min_epochs,
        )
    elif job.early_stopping and scores < needed:
        lower = {
            "early_stopping_patience": job.early_stopping_patience,
            "_validation_interval": job.validation_interval,
        }
        names = " or ".join(name for name, value in lower.items() if value > 1)
        LOG.warning(
            "early_stopping has no effect: %s before the last epoch, and it takes %d to see that they "
            "no longer improve; raise epochs%s",
            f"there are {scores} scores" if scores != 1 else "there is 1 score",
            needed,
            f", or lower {names}" if names else "",
        )


class EarlyStopping:
    """Counts epochs without a relative improvement of the validation mIOU.

    https://docs.aws.amazon.com/sagemaker/latest/dg/segmentation-hyperparameters.html
    """

    def __init__(self, hyperparameters: Hyperparameters) -> None:
        self._active = hyperparameters.early_stopping
        self._min_epochs = hyperparameters.early_stopping_min_epochs
        self._patience = hyperparameters.early_stopping_patience
        self._tolerance = hyperparameters.early_stopping_tolerance
        self._best = -math.inf
        self._since_best = 0

    def update(self, epoch: int, miou: float) -> bool:
        """Take the score of `epoch` (0 is the first); return whether the job must stop after it."""
        if miou > self._best * (1 + self._tolerance) or self._best == -math.inf:
            self._best, self._since_best = miou, 0
        else:
            self._since_best += 1
        return self._active and epoch + 1 >= self._min_epochs and self._since_best >= max(1, self._patience)
