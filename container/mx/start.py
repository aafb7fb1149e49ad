"""Where training starts from: an earlier job's weights, ImageNet's, or none."""

from __future__ import annotations

import logging
from typing import Any

import mxnet as mx
import numpy as np

from container import artifacts
from container.archives import opened_model
from container.environment import Environment
from container.errors import ClientError
from container.hyperparameters import Hyperparameters
from container.mx.network import SegmentationNetwork, initialize_weights, load_weights
from container.mx.pretrained import find_pretrained, load_pretrained

LOG = logging.getLogger(__name__)


def start_network(environment: Environment, job: Hyperparameters, devices: list[mx.Context]) -> SegmentationNetwork:
    """Create the job's network on its devices, with the weights that it starts from.

    The channel `model` (incremental training) goes before `use_pretrained_model`. Raises ClientError when the
    weights are missing or belong to another network.
    """
    imagenet = (
        find_pretrained(job.backbone) if job.use_pretrained_model and "model" not in environment.channels else None
    )
    if job.seed is not None:
        mx.random.seed(job.seed)
        np.random.seed(job.seed)  # MXNet's initialisers draw from both
    network = SegmentationNetwork(job.algorithm, job.backbone, job.num_classes, **_norm(job, devices))
    initialize_weights(network)
    if "model" in environment.channels:
        _load_earlier(network, environment, job)
    elif imagenet:
        load_pretrained(network, job.backbone, imagenet)
    network.collect_params().reset_ctx(devices)
    network.hybridize()
    return network


def _norm(job: Hyperparameters, devices: list[mx.Context]) -> dict[str, Any]:
    """Return the normalisation layers' settings: over all GPUs with syncbn."""
    if not job.syncbn or len(devices) == 1:
        return {}
    if devices[0].device_type == "cpu":
        LOG.warning("syncbn needs GPUs: batch normalisation stays with each device")
        return {}
    return {
        "norm_layer": mx.gluon.contrib.nn.SyncBatchNorm,
        "norm_kwargs": {"num_devices": len(devices)},
    }


def _load_earlier(network: SegmentationNetwork, environment: Environment, job: Hyperparameters) -> None:
    """Load the best weights of the job whose archive is in the channel `model`."""
    with opened_model(environment.channels["model"].path) as model:
        earlier = artifacts.read_model_settings(model.directory, model.source)
        for name, value in earlier.items():
            if value != getattr(job, name):
                raise ClientError(
                    f"the model in channel model has {name}={value}, this job {getattr(job, name)}: "
                    "incremental training needs the same network"
                )
        weights = f"{artifacts.BEST_WEIGHTS} of {model.source}"
        load_weights(network, model.directory / artifacts.BEST_WEIGHTS, [mx.cpu()], weights)
    LOG.info("starting from the weights in channel model: %s", model.source)
