"""Gradient accumulation and gradient clipping."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import mxnet as mx
import numpy as np
from mxnet import gluon

from container.errors import AlgorithmError
from container.mx.replicas import TrainingDivergedError

LOG = logging.getLogger(__name__)

_SUMMED_AT_ONCE = 100  # arrays
_DISTURBANCE = 0.1  # of a kernel's standard deviation
_LEAST_EFFECT = 1e-3  # of the loss, below it rounding can be the cause
_LEAST_LOSS_SCALE = 1e-4  # from 65536, 30 updates are then skipped in a row


class Accumulation:
    """Adds the gradients of `steps` backward passes to one gradient, that of all their images.

    The sums are separate arrays. `grad_req="add"` of MXNet is not used: with AMP on a CPU, the backward pass of
    `amp_cast` ignores it, and every convolution has the gradient 0.

    The total mass of the images is known only after the last step. Therefore every step divides the sum of its losses
    by a `nominal` mass, and `finish` corrects that.
    """

    def __init__(self, parameters: Sequence[gluon.Parameter], steps: int, devices: int, nominal: float) -> None:
        self.parameters = parameters
        self.nominal = nominal
        self.made = 0  # steps since the last update
        self._steps = steps
        self.masses = [0.0] * devices
        self.sums = [[mx.nd.zeros_like(each) for each in parameter.list_grad()] for parameter in parameters]

    @property
    def full(self) -> bool:
        """Whether it is time for the update."""
        return self.made >= self._steps

    def add(self, masses: Sequence[float]) -> None:
        """Add the gradients of a backward pass, and each device's mass."""
        self.made += 1
        self.masses = [total + mass for total, mass in zip(self.masses, masses, strict=True)]
        for parameter, totals in zip(self.parameters, self.sums, strict=True):
            for total, gradient in zip(totals, parameter.list_grad(), strict=True):
                total += gradient

    def finish(self, whole: float | None) -> None:
        """Set the parameters' gradients to the sums, each device's divided by a mass.

        That is `whole`, the mass on all devices of all hosts, or the device's own mass if `whole` is None.
        """
        for device, mass in enumerate(self.masses):
            factor = self.nominal / ((mass if whole is None else whole) or 1.0)
            for parameter, totals in zip(self.parameters, self.sums, strict=True):
                parameter.list_grad()[device][:] = totals[device] * factor

    def clear(self) -> None:
        """Begin the next update."""
        self.made, self.masses = 0, [0.0] * len(self.masses)
        for totals in self.sums:
            for total in totals:
                total[:] = 0

    def numbers(self) -> dict[str, Any]:
        """Describe it for a checkpoint, which contains the sums, too."""
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
            total = self.sums[parameter][device % len(self.masses)]
            total += array.as_in_context(total.context)
        for parameter in self.parameters:
            for data in parameter.list_data():
                data._fresh_grad = True  # an update may follow at once, which gluon rejects without a backward pass


def clip_norm(parameters: Sequence[gluon.Parameter], scale: float, largest: float) -> None:
    """Scale the gradient, on every device, down to the norm `largest` where it is more; `scale` is still to come.

    The CPU does not wait for the norm. A norm that is not finite makes the gradient NaN: a factor of 0 would hide it.
    """
    for gradients in zip(*(parameter.list_grad() for parameter in parameters), strict=True):
        chunks = [gradients[at : at + _SUMMED_AT_ONCE] for at in range(0, len(gradients), _SUMMED_AT_ONCE)]
        squares = [mx.nd.multi_sum_sq(*chunk, num_arrays=len(chunk)).sum() for chunk in chunks]
        norm = mx.nd.add_n(*squares).sqrt() * scale
        factor = mx.nd.minimum(largest / norm, 1) + (norm - norm)
        for gradient in gradients:
            mx.nd.broadcast_mul(gradient, factor.reshape((1,) * gradient.ndim), out=gradient)


def check_gradients(parameters: Mapping[str, gluon.Parameter], compute_loss: Callable[[], float]) -> bool:
    """Check that every kernel on which the loss depends has a gradient; return False if these gradients cannot show it.

    A gradient of exactly 0 can be right: no pixel has a label, a batch norm of one pixel returns a constant, or a ReLU
    or a scale of 0 blocks the path. In all these cases the loss does not depend on the kernel. Therefore such a kernel
    is disturbed. If the loss changes, the gradient was lost. Vectors are not checked: in bfloat16, rounding makes the
    loss depend on a bias that a batch norm subtracts.

    `compute_loss` returns the same loss at every call with the same weights. It is called only if a gradient is 0.

    Raises AlgorithmError that names the first such kernel, with all weights as they were.
    """
    kernels = {name: each for name, each in parameters.items() if each.grad_req != "null" and len(each.shape) > 1}
    if not kernels:
        return True
    sizes = mx.nd.concat(*(each.list_grad()[0].norm(ord=1).reshape(1) for each in kernels.values()), dim=0).asnumpy()
    if not np.isfinite(sizes).all():  # AMP skips this update
        return False
    suspects = [name for name, size in zip(kernels, sizes, strict=True) if size == 0]
    if not suspects:
        return True
    loss = compute_loss()
    if loss == 0:  # no pixel has a label
        return False
    for name in suspects:
        change = abs(_loss_disturbed(kernels[name], compute_loss) - loss)
        if change > _LEAST_EFFECT * max(1.0, loss):
            raise AlgorithmError(
                f"{name} does not train: its gradient in the first update is 0, although a small change of it changes "
                f"the loss from {loss:.4g} by {change:.2g}. Train with precision_dtype=float32 and without the options "
                "that begin with an underscore, and report this"
            )
    LOG.warning(
        "The gradient of %s is 0 in the first update, because the loss does not depend on %s yet. If a batch norm of "
        "one pixel is the cause (a pooling branch of psp, deeplab, or fastscnn), set a higher mini_batch_size, so that "
        "every device has more than one image",
        ", ".join(suspects[:5]) + (f" and {len(suspects) - 5} more" if suspects[5:] else ""),
        "them" if suspects[1:] else "it",
    )
    return True


def _loss_disturbed(kernel: gluon.Parameter, compute_loss: Callable[[], float]) -> float:
    """Return the loss with a disturbed kernel."""
    own = kernel.list_data()[0].copy()
    values = own.asnumpy()
    noise = np.random.default_rng(0).standard_normal(values.shape).astype(values.dtype)
    kernel.set_data(mx.nd.array(values + _DISTURBANCE * values.std() * noise))
    try:
        return compute_loss()
    finally:
        kernel.set_data(own)


def check_loss_scale(scale: float) -> None:
    """Raise Diverged if AMP has halved the loss scale so often that no update can be possible any more.

    AMP halves it, and skips the update, if a gradient is not finite.
    """
    if scale < _LEAST_LOSS_SCALE:
        raise TrainingDivergedError(
            f"gradients are not finite at any loss scale: AMP has skipped every update down to {scale:g}"
        )
