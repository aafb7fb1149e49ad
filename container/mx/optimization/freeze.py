"""Frozen layers: the backbone, or batch normalization."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from mxnet.gluon import nn

from container.hyperparameters import Hyperparameters
from container.mx.networks.segmentation import SegmentationNetwork

LOG = logging.getLogger(__name__)


def freeze_layers(network: SegmentationNetwork, job: Hyperparameters, loaded: set[str]) -> None:
    """Freeze what the job's switches name of the parameters that were `loaded`, before the network is hybridized.

    A frozen batch norm normalizes by the statistics that it was loaded with, in training too.
    """
    parameters = network._collect_params_with_prefix()
    if job.freeze_backbone:
        for name, parameter in parameters.items():
            if not name.startswith(tuple(f"{head}." for head in network.heads)):
                parameter.grad_req = "null"
    count = 0
    for name, norm in _batch_norms(network):
        in_backbone = name.split(".")[0] not in network.heads
        if f"{name}.running_mean" in loaded and (job.freeze_batchnorm or (job.freeze_backbone and in_backbone)):
            norm._kwargs["use_global_stats"] = True  # what the constructor's argument of that name sets
            norm.gamma.grad_req = norm.beta.grad_req = "null"
            count += 1
    if job.freeze_backbone or job.freeze_batchnorm:
        backbone = "the backbone and " if job.freeze_backbone else ""
        LOG.info("%sthe statistics and scales of %d batch normalization layers are not trained", backbone, count)


def _batch_norms(network: SegmentationNetwork) -> Iterator[tuple[str, nn.BatchNorm]]:
    """Give every batch norm with its name in parameter files."""
    waiting = [("", network)]
    while waiting:
        name, block = waiting.pop()
        if isinstance(block, nn.BatchNorm):
            yield name, block
        waiting += [(f"{name}.{key}".lstrip("."), child) for key, child in block._children.items()]
