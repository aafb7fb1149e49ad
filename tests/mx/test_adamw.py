"""AdamW against its published algorithm, in NumPy."""

from __future__ import annotations

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd, gluon

from container.mx.optimization.adamw import AdamW
from tests.mx import tiny


def test_steps_are_algorithm_2_of_the_paper() -> None:
    """https://arxiv.org/abs/1711.05101, with the decay times the rate, as in every framework."""
    rng = np.random.default_rng(0)
    start, gradients = rng.normal(size=(3, 4)), rng.normal(size=(5, 3, 4))
    parameter = gluon.Parameter("weight", shape=(3, 4), lr_mult=10)
    parameter.initialize(mx.init.Zero())
    parameter.set_data(mx.nd.array(start))
    trainer = gluon.Trainer([parameter], AdamW(0.1, learning_rate=0.01))
    weight, mean, variance = start.copy(), 0.0, 0.0
    for t, gradient in enumerate(gradients, 1):
        with autograd.record():
            loss = (parameter.data() * mx.nd.array(gradient)).sum()
        loss.backward()
        trainer.step(1)
        mean, variance = 0.9 * mean + 0.1 * gradient, 0.999 * variance + 0.001 * gradient**2
        step = mean / (1 - 0.9**t) / (np.sqrt(variance / (1 - 0.999**t)) + 1e-8)
        weight = weight - 0.1 * 0.1 * weight - 0.1 * step  # the rate is 0.01 times 10
        np.testing.assert_allclose(parameter.data().asnumpy(), weight, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("devices", [1, 2])
def test_only_weights_decay(devices: int) -> None:
    """What decay takes is the difference to the same step without it: rate × decay of the weight."""
    held = []
    for decay in (0.5, 1e-12):
        trainer = tiny.tiny_trainer(tiny.cpus(devices), tiny.tiny_job(optimizer="adamw", weight_decay=decay))
        start = tiny.copies(trainer)
        tiny.train(trainer, [tiny.batch(4)], rate=0.01)
        held.append(tiny.copies(trainer))
    for name in start.keys() - {"stem.0.bias"}:  # batch normalization leaves its gradient nothing but rounding errors
        taken = held[1][name][0] - held[0][name][0]
        rate = 0.1 if name.startswith("head") else 0.01
        expected = start[name][0] * rate * 0.5 if name.endswith("weight") else 0 * start[name][0]
        np.testing.assert_allclose(taken, expected, rtol=1e-3, atol=1e-6, err_msg=name)
