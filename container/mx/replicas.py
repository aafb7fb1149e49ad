"""Consistency of weights and statistics over devices and hosts."""

from __future__ import annotations

import mxnet as mx
import numpy as np

from container.cluster.hosts import Hosts
from container.errors import AlgorithmError
from container.mx.networks.segmentation import SegmentationNetwork

_TOLERANCE = 1e-6  # share of the sum of magnitudes of a parameter; synchronized devices do not differ


class TrainingDivergedError(Exception):
    """The loss or the weights are not finite."""


def check_replicas(network: SegmentationNetwork, devices: list[mx.Context], hosts: Hosts) -> None:
    """Check that all devices and hosts have equal weights. Every host must call it at the same point.

    Raises AlgorithmError that names a parameter with different weights, and TrainingDivergedError for a parameter that
    is not finite.
    """
    first, *others = devices
    parameters = network._collect_params_with_prefix()
    sizes = {name: float(each.data(first).abs().sum().asscalar()) for name, each in parameters.items()}
    means = hosts.sum_array(np.array(list(sizes.values()), np.float32)) / hosts.count
    for (name, parameter), size, mean in zip(parameters.items(), sizes.values(), means, strict=True):
        if not (np.isfinite(size) and np.isfinite(mean)):
            raise TrainingDivergedError(f"the parameter {name} is not finite")
        for device in others:
            apart = parameter.data(device).as_in_context(first) - parameter.data(first)
            if not float(apart.abs().sum().asscalar()) <= _TOLERANCE * size:
                raise AlgorithmError(
                    f"the devices have different weights: {name} differs between {first} and {device} by a total of "
                    f"{float(apart.abs().sum().asscalar()):g}, and the sum of its magnitudes is {size:g}. Train on "
                    "one device, and report this error."
                )
        if not abs(size - mean) <= _TOLERANCE * mean:
            raise AlgorithmError(
                f"the hosts have different weights: the sum of the magnitudes of {name} is {size:g} on {hosts.name}, "
                f"and {mean:g} in the mean of all hosts. Train on one host, and report this error."
            )


def share_statistics(network: SegmentationNetwork, devices: list[mx.Context]) -> None:
    """Set the running statistics of all devices of this host to their mean."""
    mx.nd.waitall()  # with static allocation, the MXNet engine does not track writes of statistics
    if len(devices) > 1:
        for name, parameter in network._collect_params_with_prefix().items():
            if is_statistic(name):
                parameter.set_data(mean_of(parameter.list_data()))


def average_over_hosts(statistics: list[list[mx.nd.NDArray]], hosts: Hosts, here: int, images: int) -> None:
    """Set all copies of each statistic to the mean over hosts, weighted by the images: `here` of all `images`.

    Every host must call it at the same point.
    """
    if hosts.count == 1 or not images:
        return
    values = [copies[0].asnumpy() for copies in statistics]
    means = hosts.sum_array(np.concatenate(values) * np.float32(here / images))
    ends = np.cumsum([len(each) for each in values])
    for copies, mean in zip(statistics, np.split(means, ends[:-1]), strict=True):
        for copy in copies:
            copy[:] = mean


def is_statistic(name: str) -> bool:
    """Return whether a parameter is a running statistic, from its name."""
    return name.endswith(("running_mean", "running_var"))  # of batch normalization, computed separately on each device


def mean_of(copies: list[mx.nd.NDArray]) -> mx.nd.NDArray:
    """Return the mean of the copies on several devices, on the first device."""
    total = copies[0].copy()
    for copy in copies[1:]:
        total += copy.as_in_context(total.context)
    return total / len(copies)
