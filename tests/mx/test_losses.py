"""The losses against the published formulas, written out pixel by pixel in NumPy, and their gradients."""

from __future__ import annotations

from typing import Any

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd, gluon

from container.mx.optimization.losses import choose_criterion
from tests.mx import tiny

WEIGHTS = [0.5, 1.0, 4.0]
LOSSES = ["ce", "focal", "ohem", "ce+dice", "ce+lovasz"]


def example(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits and labels of two images: one lacks a class and has ignored pixels, the other has few of one class."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (2, 3, 4, 5)).astype(np.float32)
    labels = rng.integers(0, 2, (2, 4, 5))
    labels[0, 0], labels[1, 3, 4] = 255, 2
    return logits, labels.astype(np.float32)


def probabilities(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def lovasz_grad(truth: np.ndarray) -> np.ndarray:
    """Algorithm 1 of Berman et al., https://arxiv.org/abs/1705.08790, for sorted truth."""
    count = truth.sum()
    jaccard = 1 - (count - truth.cumsum()) / (count + (1 - truth).cumsum())
    jaccard[1:] -= jaccard[:-1].copy()
    return jaccard


def reference(loss: str, logits: np.ndarray, labels: np.ndarray, weights: list[float]) -> float:
    """The sum of every image's mean times its mass."""
    total = 0.0
    for likely, truth in zip(probabilities(logits), labels, strict=True):
        valid = truth != 255
        pixels, classes = likely[:, valid], truth[valid].astype(int)
        right = pixels[classes, np.arange(len(classes))]
        mass = np.array(weights)[classes]
        entropy = -np.log(right)
        if loss == "focal":
            total += (mass * (1 - right) ** 1.5 * entropy).sum()
            continue
        if loss == "ohem":
            mass, entropy = mass[mass > 0], entropy[mass > 0]
            kept = np.argsort(-entropy)[: int(np.ceil(0.3 * len(entropy)))]
            total += (mass * entropy)[kept].sum() / mass[kept].sum() * mass.sum()
            continue
        total += (mass * entropy).sum()
        present = sorted(set(classes))
        if loss == "ce+dice":
            scores = [2 * pixels[c, classes == c].sum() / (pixels[c].sum() + (classes == c).sum()) for c in present]
            total += np.mean([1 - score for score in scores]) * mass.sum()
        if loss == "ce+lovasz":
            parts = []
            for c in present:
                hit = (classes == c).astype(float)
                errors = np.abs(hit - pixels[c])
                order = np.argsort(-errors)
                parts.append(errors[order] @ lovasz_grad(hit[order]))
            total += np.mean(parts) * mass.sum()
    return float(total)


class Loss(gluon.HybridBlock):
    def __init__(self, criterion: Any) -> None:
        super().__init__()
        self.criterion = criterion

    def hybrid_forward(self, F: Any, logits: Any, labels: Any, weights: Any) -> Any:
        return self.criterion(F, logits, labels, weights)


def evaluate(loss: str, logits: np.ndarray, labels: np.ndarray, weights: list[float]) -> tuple[float, np.ndarray]:
    """Our loss and its gradient, by the graph that training builds."""
    job = tiny.tiny_job(_loss=loss, _class_weights=weights, _focal_gamma=1.5, _ohem_share=0.3)
    block = Loss(choose_criterion(job))
    block.hybridize()
    answers = mx.nd.array(logits)
    answers.attach_grad()
    with autograd.record():
        value = block(answers, mx.nd.array(labels), mx.nd.array(weights))
    value.backward()
    return float(value.asscalar()), answers.grad.asnumpy()


@pytest.mark.parametrize(
    "weights", [[1.0, 1.0, 1.0], WEIGHTS, [0.0, 1.0, 4.0]], ids=["equal", "weighted", "one of no weight"]
)
@pytest.mark.parametrize("loss", LOSSES)
def test_a_loss_is_the_published_one(loss: str, weights: list[float]) -> None:
    for seed in range(3):
        logits, labels = example(seed)
        assert evaluate(loss, logits, labels, weights)[0] == pytest.approx(
            reference(loss, logits, labels, weights), rel=1e-5
        )


@pytest.mark.parametrize("loss", LOSSES)
def test_its_gradient_is_the_slope_of_the_published_one(loss: str) -> None:
    logits, labels = example()
    gradient, step = evaluate(loss, logits, labels, WEIGHTS)[1], 1e-4
    for place in [(0, 0, 1, 1), (0, 2, 3, 4), (1, 0, 0, 0), (1, 1, 2, 2), (1, 2, 3, 4)]:
        up, down = (logits.astype(np.float64).copy() for _ in range(2))
        up[place] += step
        down[place] -= step
        slope = (reference(loss, up, labels, WEIGHTS) - reference(loss, down, labels, WEIGHTS)) / (2 * step)
        assert gradient[place] == pytest.approx(slope, rel=1e-2, abs=1e-4)
    assert not gradient[0, :, 0].any()  # ignored


@pytest.mark.parametrize("loss", LOSSES)
def test_hopeless_and_perfect_answers_have_finite_losses_and_gradients(loss: str) -> None:
    _, labels = example()
    sure = np.where(labels[:, None] == np.arange(3)[:, None, None], 80.0, -80.0).astype(np.float32)
    for logits in (sure, -sure):
        value, gradient = evaluate(loss, logits, labels, WEIGHTS)
        assert np.isfinite(value) and np.isfinite(gradient).all()
    assert evaluate(loss, sure, labels, WEIGHTS)[0] == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("loss", LOSSES)
def test_nothing_labeled_teaches_nothing(loss: str) -> None:
    logits, labels = example()
    value, gradient = evaluate(loss, logits, np.full_like(labels, 255), WEIGHTS)
    assert value == 0 and not gradient.any()


SWITCHES: list[dict[str, Any]] = [{"_class_weights": [1, 2, 5]}, *({"_loss": loss} for loss in LOSSES[1:])]


@pytest.mark.parametrize("settings", SWITCHES, ids=str)
def test_a_step_is_the_same_on_two_devices(settings: dict[str, Any]) -> None:
    losses = []
    for devices in (1, 2):
        trainer = tiny.tiny_trainer(
            tiny.cpus(devices), tiny.tiny_job(_gradient_scale="mean", **settings), use_global_stats=True
        )
        trainer.network.head[0]._rate = 0.0
        losses.append(tiny.train(trainer, [tiny.batch(4, seed) for seed in range(3)] + [tiny.batch(1)], rate=0.1))
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert losses[0][0] != pytest.approx(losses[0][2], rel=1e-3)  # it has learnt


def test_class_weights_make_the_mean_a_weighted_one() -> None:
    """A weight that all pixels share changes nothing; one class alone with a weight is all there is to learn."""
    plain, doubled = train_once(None), train_once([2, 2, 2])
    assert doubled == pytest.approx(plain, rel=1e-5)
    assert train_once([0, 0, 3]) != pytest.approx(plain, rel=1e-3)


def train_once(weights: list[float] | None) -> list[float]:
    settings = {} if weights is None else {"_class_weights": weights}
    return tiny.train(tiny.tiny_trainer(tiny.cpus(1), tiny.tiny_job(**settings)), [tiny.batch(4)] * 2)


def test_weights_that_come_later_count_from_then_on() -> None:
    later = tiny.tiny_trainer(tiny.cpus(2), tiny.tiny_job(_class_weights="balanced"))
    first = tiny.train(later, [tiny.batch(4)])
    assert first == pytest.approx(tiny.train(tiny.tiny_trainer(tiny.cpus(2), tiny.tiny_job()), [tiny.batch(4)]))
    later.set_class_weights([0, 0, 3])
    given = tiny.tiny_trainer(tiny.cpus(2), tiny.tiny_job(_class_weights=[0, 0, 3]))
    given.set_own_weights(later.own_weights())
    assert tiny.train(later, [tiny.batch(4)], 1) == pytest.approx(tiny.train(given, [tiny.batch(4)], 1), rel=1e-5)
