"""The losses of `_loss`.

A pixel's mass is its class's weight, 1 without `_class_weights`; an ignored one has none. Cross-entropy and focal loss
are so the weighted mean over pixels. What is not a sum over pixels (Dice, Lovász, the hardest pixels) is taken of each
image alone and counts by the image's mass: on any number of devices, and however steps are accumulated, it is the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from container.data.labels.decoding import IGNORE
from container.hyperparameters import Hyperparameters

Criterion = Callable[[Any, Any, Any, Any], Any]  # F, logits, labels, class weights or None → sum, shape (1,)

_TINY = 1e-7  # below the float32 precision at 1


def choose_criterion(job: Hyperparameters) -> Criterion | None:
    """Return the job's loss as a function of (F, logits (N, C, H, W), labels (N, H, W), class weights (C,) or None).

    None means `cross_entropy`, as in the built-in algorithm.
    """
    if job.loss == "ce" and job.class_weights is None:
        return None
    if job.loss == "focal":
        return lambda F, logits, labels, weights: _Pixels(F, logits, labels, weights).focal(job.focal_gamma)
    if job.loss == "ohem":
        return lambda F, logits, labels, weights: _Pixels(F, logits, labels, weights).hardest(job.ohem_share)
    if job.loss == "ce+dice":
        return lambda F, logits, labels, weights: _Pixels(F, logits, labels, weights).with_dice()
    if job.loss == "ce+lovasz":
        return lambda F, logits, labels, weights: _Pixels(F, logits, labels, weights).with_lovasz()
    return lambda F, logits, labels, weights: _Pixels(F, logits, labels, weights).cross_entropy()


def cross_entropy(F: Any, logits: Any, labels: Any) -> Any:
    """Sum of the cross-entropy over all pixels that are labeled.

    log_softmax, not the logarithm of a softmax (which is infinite for logits such as 100 and −21).
    """
    labeled = labels != IGNORE
    classes = F.where(labeled, labels, F.zeros_like(labels))
    return -F.sum(F.pick(F.log_softmax(logits, axis=1), classes, axis=1) * labeled)


class _Pixels:
    """One head's answer to a batch, each image's pixels in a row: (N, P), and (N, C, P) by class."""

    def __init__(self, F: Any, logits: Any, labels: Any, weights: Any) -> None:
        self._F = F
        labels = F.reshape(labels, shape=(0, -1))
        self._labeled = labels != IGNORE
        self._classes = F.where(self._labeled, labels, F.zeros_like(labels))
        self._scores = F.log_softmax(F.reshape(logits, shape=(0, 0, -1)), axis=1)
        self._losses = -F.pick(self._scores, self._classes, axis=1)
        masses = self._labeled if weights is None else self._labeled * F.take(weights, self._classes)
        self._masses = F.BlockGrad(masses)

    def cross_entropy(self) -> Any:
        return self._F.sum(self._losses * self._masses)

    def focal(self, gamma: float) -> Any:
        """(1 − p)^γ times the cross-entropy, https://arxiv.org/abs/1708.02002."""
        F = self._F
        unsure = F.maximum(1 - F.exp(-self._losses), _TINY)  # whose power has a slope even where p is 1
        return F.sum(unsure**gamma * self._losses * self._masses)

    def hardest(self, share: float) -> Any:
        """The weighted mean over each image's hardest pixels, https://arxiv.org/abs/1604.03540, by the image's mass."""
        F = self._F
        counting = self._masses > 0  # a class of weight 0 would fill the share, and be learnt no better
        hardness = F.BlockGrad(F.where(counting, self._losses, -F.ones_like(self._losses)))
        last = F.maximum(F.ceil(F.sum(counting, axis=1) * share), 1) - 1
        limit = F.pick(F.sort(hardness, axis=1, is_ascend=False), last, axis=1, keepdims=True)
        kept = self._masses * F.broadcast_greater_equal(hardness, limit)
        total = F.sum(kept, axis=1)
        total = F.where(total > 0, total, F.ones_like(total))
        return F.sum(F.sum(self._losses * kept, axis=1) / total * F.sum(self._masses, axis=1))

    def with_dice(self) -> Any:
        """1 − the Dice coefficient with probabilities, https://arxiv.org/abs/1606.04797, of each image's classes."""
        F = self._F
        true, likely = self._by_class()
        both, total = F.sum(true * likely, axis=2), F.sum(true + likely, axis=2)
        return self._with(1 - 2 * both / F.maximum(total, _TINY), true)

    def with_lovasz(self) -> Any:
        """The Lovász extension of 1 − IoU, https://arxiv.org/abs/1705.08790, of each image's classes."""
        F = self._F
        true, likely = self._by_class()
        errors = F.reshape(F.abs(true - likely), shape=(-3, 0))  # (N × C, P), as are those below
        order = F.BlockGrad(F.argsort(errors, axis=1, is_ascend=False))
        rows = F.broadcast_like(F.expand_dims(F.contrib.arange_like(F.BlockGrad(errors), axis=0), axis=1), order)
        places = F.stack(rows, order, axis=0)
        hits = F.BlockGrad(F.gather_nd(F.reshape(true, shape=(-3, 0)), places))
        count = F.sum(hits, axis=1, keepdims=True)
        found = F.cumsum(hits, axis=1)
        union = F.broadcast_add(count, F.cumsum(1 - hits, axis=1))
        jaccard = 1 - F.broadcast_sub(count, found) / union
        before = F.concat(F.zeros_like(count), F.slice_axis(jaccard, axis=1, begin=0, end=-1), dim=1)
        losses = F.sum(F.gather_nd(errors, places) * F.BlockGrad(jaccard - before), axis=1)
        return self._with(F.reshape_like(losses, F.sum(true, axis=2)), true)

    def _by_class(self) -> tuple[Any, Any]:
        """Return truth and probability of every class, (N, C, P), both 0 where nothing is labeled."""
        F = self._F
        labeled = F.expand_dims(self._labeled, axis=1)
        classes = F.expand_dims(self._classes, axis=1)
        ids = F.reshape(F.contrib.arange_like(F.BlockGrad(self._scores), axis=1), shape=(1, -1, 1))
        true = F.broadcast_mul(F.broadcast_equal(classes, ids), labeled)
        return F.BlockGrad(true), F.broadcast_mul(F.exp(self._scores), labeled)

    def _with(self, losses: Any, true: Any) -> Any:
        """Add to the cross-entropy the mean of `losses` (N, C) over the classes of each image, by its mass."""
        F = self._F
        present = F.BlockGrad(F.sum(true, axis=2) > 0)
        mean = F.sum(losses * present, axis=1) / F.maximum(F.sum(present, axis=1), 1)
        return self.cross_entropy() + F.sum(mean * F.sum(self._masses, axis=1))
