"""Consistency of weights and statistics over devices and hosts."""

from __future__ import annotations

import mxnet as mx
import numpy as np

from container.data.hosts import Hosts
from container.errors import AlgorithmError
from container.mx.networks.segmentation import SegmentationNetwork

_TOLERANCE = 1e-6  # of a parameter's sum of magnitudes; devices that are in step do not differ at all


class TrainingDivergedError(Exception):
    """Loss or weights are no longer finite."""


def check_replicas(network: SegmentationNetwork, devices: list[mx.Context], hosts: Hosts) -> None:
    """Make sure that devices and hosts hold one network. Every host calls it at the same point.

    Raises AlgorithmError that names a parameter whose weights differ, Diverged for one that is not finite.
    """
    first, *others = devices
    parameters = network._collect_params_with_prefix()
    sizes = {name: float(each.data(first).abs().sum().asscalar()) for name, each in parameters.items()}
    means = hosts.sum(np.array(list(sizes.values()), np.float32)) / hosts.count
    for (name, parameter), size, mean in zip(parameters.items(), sizes.values(), means, strict=True):
        if not (np.isfinite(size) and np.isfinite(mean)):
            raise TrainingDivergedError(f"the parameter {name} is no longer finite")
        for device in others:
            apart = parameter.data(device).as_in_context(first) - parameter.data(first)
            if not float(apart.abs().sum().asscalar()) <= _TOLERANCE * size:
                raise AlgorithmError(
                    f"the devices no longer train one network: {name} differs between {first} and {device} by "
                    f"{float(apart.abs().sum().asscalar()):g} in all, its magnitudes add up to {size:g}; train on "
                    "one device, and report this"
                )
        if not abs(size - mean) <= _TOLERANCE * mean:
            raise AlgorithmError(
                f"the hosts no longer train one network: the magnitudes of {name} add up to {size:g} on "
                f"{hosts.name}, and to {mean:g} in the mean of all; train on one host, and report this"
            )


def share_statistics(network: SegmentationNetwork, devices: list[mx.Context]) -> None:
    """Give all devices of this host the mean of their running statistics."""
    mx.nd.waitall()  # with static allocation, statistics are written behind the engine's back
    if len(devices) > 1:
        for name, parameter in network._collect_params_with_prefix().items():
            if is_statistic(name):
                parameter.set_data(mean_of(parameter.list_data()))


def average_over_hosts(statistics: list[list[mx.nd.NDArray]], hosts: Hosts, here: int, images: int) -> None:
    """Set each statistic's copies to their mean over hosts, a host counting by its images: `here`, of all `images`.

    Every host calls it at the same point.
    """
    if hosts.count == 1 or not images:
        return
    values = [copies[0].asnumpy() for copies in statistics]
    means = hosts.sum(np.concatenate(values) * np.float32(here / images))
    ends = np.cumsum([len(each) for each in values])
    for copies, mean in zip(statistics, np.split(means, ends[:-1]), strict=True):
        for copy in copies:
            copy[:] = mean


def is_statistic(name: str) -> bool:
    """Tell a running statistic from a weight by its name."""
    return name.endswith(("running_mean", "running_var"))  # of batch normalization, which each device gathers by itself


def mean_of(copies: list[mx.nd.NDArray]) -> mx.nd.NDArray:
    """Return the mean of what several devices hold, on the first of them."""
    total = copies[0].copy()
    for copy in copies[1:]:
        total += copy.as_in_context(total.context)
    return total / len(copies)
