"""The AdamW optimizer (https://arxiv.org/abs/1711.05101), which MXNet 1.9.1 has only as an operator."""

from __future__ import annotations

from typing import Any

import mxnet as mx


class AdamW(mx.optimizer.Adam):
    """Adam of MXNet, after each weight was multiplied by 1 − rate × decay, with the rate of the parameter.

    Vectors do not decay: those are the scales and shifts of batch normalization, and biases.
    """

    def __init__(self, decay: float, **settings: Any) -> None:
        super().__init__(wd=0.0, **settings)
        self._decay = decay

    def update(self, index: int, weight: mx.nd.NDArray, grad: mx.nd.NDArray, state: Any) -> None:
        """Update one parameter."""
        if weight.ndim > 1:
            weight *= 1 - self._get_lr(index) * self._decay
        super().update(index, weight, grad, state)
