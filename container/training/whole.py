"""The validation of an epoch on whole images, as `_validation=full` wants it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from container.arrays import Uint8Array
from container.data.loader import Loader
from container.data.pictures import Picture
from container.errors import ClientError
from container.hyperparameters import Hyperparameters
from container.metrics import ConfusionMatrix
from container.mx.scoring import MXNetScorer, without_autotuning
from container.mx.trainer import Trainer
from container.training.scoring import Score, score

LOG = logging.getLogger(__name__)


def score_whole(
    trainer: Trainer,
    loader: Loader,
    job: Hyperparameters,
    stop: threading.Event,
    watch: Callable[[Picture, Uint8Array], None] | None = None,
) -> tuple[ConfusionMatrix, int] | None:
    """Score the network on every pixel of every image that fits into memory, and count them; None when stopped.

    Raises what the channel's pass does, and ClientError when more images than `_max_bad_records` cannot be used, or
    when none was scored.
    """
    with trainer.answering(), without_autotuning():
        scorer = MXNetScorer(trainer.network, trainer.devices, stop)
        found = score(loader, scorer, job.num_classes, stop, watch)
    if found.cancelled or stop.is_set():
        return None
    if found.failure:
        raise found.failure
    _judge(found, job.max_bad_records)
    return found.confusions[0], len(found.scored)


def _judge(found: Score, budget: int) -> None:
    """Refuse a score of too few images; say so when it is not of all."""
    bad = [skipped for skipped in found.skipped if not skipped.too_large]
    if len(bad) > budget:
        name, reason = bad[-1].name, bad[-1].reason
        raise ClientError(reason if name in reason else f"{name}: {reason}; replace or remove it")
    if not found.scored:
        reason = f": {found.skipped[0].name}: {found.skipped[0].reason}" if found.skipped else ""
        raise ClientError(
            f"no validation image could be scored at its own size{reason}; use smaller ones, a larger instance, or "
            "_validation=crop"
        )
    if found.skipped:
        LOG.warning("this validation is of %d of %d images: see the warnings above", len(found.scored), found.total)
