"""Creation of the model with its initial weights."""

from __future__ import annotations

import logging
from typing import Any

import mxnet as mx
import numpy as np

from container.environment import Environment
from container.hyperparameters import Hyperparameters
from container.mx.networks.architectures import create_network
from container.mx.networks.segmentation import SegmentationNetwork, assign_weights, initialize_weights
from container.mx.optimization.freeze import freeze_layers
from container.mx.weights.initial_weights import read_initial_weights

LOG = logging.getLogger(__name__)


def create_initial_network(
    environment: Environment, job: Hyperparameters, devices: list[mx.Context]
) -> SegmentationNetwork:
    """Create the model of the job on its devices, with the initial weights.

    The weights are read again after the check before the audit, so that they do not use memory during the audit.
    """
    initial = read_initial_weights(environment, job)
    if job.seed is not None:
        mx.random.seed(job.seed)
        np.random.seed(job.seed)  # MXNet initializers use both generators
    network = create_network(
        job.algorithm, job.num_classes, job.backbone, **norm_settings(job, devices, len(environment.hosts))
    )
    network.windows = job.windows
    initialize_weights(network)
    if initial:
        assign_weights(network, initial.arrays)
        LOG.info("%s", initial.source)
        for warning in initial.warnings:
            LOG.warning("%s", warning)
    freeze_layers(network, job, set(initial.arrays) if initial else set())
    network.collect_params().reset_ctx(devices)
    network.hybridize()
    return network


def norm_settings(job: Hyperparameters, devices: list[mx.Context], hosts: int) -> dict[str, Any]:
    """Return the settings of the normalization layers; with syncbn, they use all GPUs of this host."""
    if not job.syncbn:
        return {}
    if devices[0].device_type == "cpu":
        LOG.warning("syncbn has no effect, because this job trains on CPUs. Set syncbn=False, or use several GPUs.")
        return {}
    if len(devices) == 1:
        LOG.warning(
            "syncbn has no effect: it synchronizes the GPUs of one host, and %s one GPU. Set syncbn=False, or choose "
            "an instance type with several GPUs.",
            "each of the hosts has" if hosts > 1 else "this host has",
        )
        return {}
    if hosts > 1:
        LOG.warning("syncbn synchronizes the %d GPUs of each host, but not the %d hosts.", len(devices), hosts)
    return {
        "norm_layer": mx.gluon.contrib.nn.SyncBatchNorm,
        "norm_kwargs": {"num_devices": len(devices)},
    }
