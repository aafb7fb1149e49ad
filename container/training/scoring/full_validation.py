"""Validation on full images (`_validation=full`)."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np

from container.arrays import Uint8Array
from container.cluster.hosts import Hosts
from container.data.full_images import LabeledImage
from container.data.loader import Loader
from container.errors import ClientError
from container.hyperparameters import Hyperparameters
from container.metrics import ConfusionMatrix
from container.mx.inference.evaluation import MXNetEvaluator, without_autotuning
from container.mx.trainer import Trainer
from container.training.scoring.evaluation import EvaluationResult, score
from container.training.scoring.evaluators import largest_at_the_end

LOG = logging.getLogger(__name__)


def validate_full_images(
    trainer: Trainer,
    loader: Loader,
    job: Hyperparameters,
    hosts: Hosts,
    watch: Callable[[LabeledImage, Uint8Array], None] | None = None,
) -> tuple[ConfusionMatrix, int] | None:
    """Score the network on every pixel of every image that fits into memory, and count them; None when stopped.

    Every host scores its part, and has the score of all. Raises what the channel's pass does, and ClientError when more
    images than `_max_bad_records` cannot be used on a host, or when none was scored on any.
    """
    with trainer.answering(), without_autotuning():
        most = largest_at_the_end(trainer.network)
        scorer = MXNetEvaluator(trainer.network, trainer.devices, hosts.stop_requested, most)
        found = score(loader, scorer, job.num_classes, hosts.stop_requested, watch, divided=True)
    if not found.cancelled:
        if found.failure:
            raise found.failure
        _judge_bad(found, job.max_bad_records)
    if hosts.agree_to_stop():
        return None
    confusion = found.confusions[0]
    numbers = len(found.scored), len(found.skipped), *map(int, confusion.counts.flat)
    scored, skipped, *counts = hosts.sum_integers(*numbers)
    confusion.counts[:] = np.reshape(counts, confusion.counts.shape)
    if not scored:
        reason = f": {found.skipped[0]}" if found.skipped else ""
        raise ClientError(
            f"no validation image could be scored at its own size{reason}; use smaller ones, a larger instance, or "
            "_validation=crop"
        )
    if skipped:
        LOG.warning("this validation is of %d of %d images: see the warnings above", scored, scored + skipped)
    return confusion, scored


def _judge_bad(found: EvaluationResult, budget: int) -> None:
    """Refuse a score from which more images than the budget were left out for what they are."""
    bad = [skipped for skipped in found.skipped if not skipped.too_large]
    if len(bad) > budget:
        name, reason = bad[-1].name, bad[-1].reason
        raise ClientError(reason if name in reason else f"{name}: {reason}; replace or remove it")
