"""Gradients between the backward pass and the optimizer: gathered over several steps, and cut to a largest norm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import mxnet as mx
from mxnet import gluon

_SUMMED_AT_ONCE = 100  # arrays


class Accumulation:
    """Lets `steps` backward passes add up to one gradient, that of all their images.

    How much the steps' images weigh together is known only after the last, so every step hands down the sum of its
    losses over a `nominal` mass, which `finish` sets right.
    """

    def __init__(self, parameters: Sequence[gluon.Parameter], steps: int, devices: int, nominal: float) -> None:
        self.parameters = parameters
        self.nominal = nominal
        self.made = 0  # steps since the last update
        self._steps = steps
        self.masses = [0.0] * devices
        for parameter in parameters:
            parameter.grad_req = "add"
            parameter.zero_grad()

    @property
    def full(self) -> bool:
        """Whether it is time for the update."""
        return self.made >= self._steps

    def add(self, masses: Sequence[float]) -> None:
        """Count a step that has been handed down, with each device's mass."""
        self.made += 1
        self.masses = [total + mass for total, mass in zip(self.masses, masses, strict=True)]

    def finish(self, whole: float | None) -> None:
        """Divide each device's gradient by the mass of all of them, on all hosts, or by its own where that is None."""
        for device, mass in enumerate(self.masses):
            factor = self.nominal / ((mass if whole is None else whole) or 1.0)
            for parameter in self.parameters:
                gradient = parameter.list_grad()[device]
                gradient *= factor

    def clear(self) -> None:
        """Begin the next update."""
        self.made, self.masses = 0, [0.0] * len(self.masses)
        for parameter in self.parameters:
            parameter.zero_grad()

    def numbers(self) -> dict[str, Any]:
        """Describe it for a checkpoint, which holds the gradients themselves besides."""
        return {"made": self.made, "masses": self.masses}

    def restore(self, numbers: Mapping[str, Any], gradients: Mapping[tuple[int, int], mx.nd.NDArray]) -> None:
        """Take over what `numbers` described, and the gradients by parameter and device.

        What more devices than there are now have gathered is added to those that are there.
        """
        self.clear()
        self.made = numbers["made"]
        for device, mass in enumerate(numbers["masses"]):
            self.masses[device % len(self.masses)] += mass
        for (parameter, device), array in gradients.items():
            target = self.parameters[parameter].list_grad()[device % len(self.masses)]
            target += array.as_in_context(target.context)
        for parameter in self.parameters:
            for data in parameter.list_data():
                data._fresh_grad = True  # an update may follow at once, which gluon refuses without a backward pass


def clip_norm(parameters: Sequence[gluon.Parameter], scale: float, largest: float) -> None:
    """Scale the gradient, on every device, down to the norm `largest` where it is more; `scale` is still to come.

    Nobody waits for the norm. One that is not finite makes the gradient NaN: a factor of 0 would hide it.
    """
    for gradients in zip(*(parameter.list_grad() for parameter in parameters), strict=True):
        chunks = [gradients[at : at + _SUMMED_AT_ONCE] for at in range(0, len(gradients), _SUMMED_AT_ONCE)]
        squares = [mx.nd.multi_sum_sq(*chunk, num_arrays=len(chunk)).sum() for chunk in chunks]
        norm = mx.nd.add_n(*squares).sqrt() * scale
        factor = mx.nd.minimum(largest / norm, 1) + (norm - norm)
        for gradient in gradients:
            mx.nd.broadcast_mul(gradient, factor.reshape((1,) * gradient.ndim), out=gradient)
