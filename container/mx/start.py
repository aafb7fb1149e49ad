"""Where training starts from: a whole network's weights, ImageNet's in the backbone, or none."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np

from container import artifacts
from container.archives import opened_model
from container.environment import Environment
from container.hyperparameters import Hyperparameters
from container.mx.architectures import create_network
from container.mx.freeze import check_frozen, freeze_layers
from container.mx.network import SegmentationNetwork, initialize_weights
from container.mx.pretrained import CHANNEL, find_pretrained, load_pretrained
from container.mx.whole_network import find_bare, load_network

LOG = logging.getLogger(__name__)


def start_network(environment: Environment, job: Hyperparameters, devices: list[mx.Context]) -> SegmentationNetwork:
    """Create the job's network on its devices, with the weights that it starts from.

    The channel `model` goes before the channel `pretrained`, and that before the image's ImageNet weights. Raises
    ClientError when the weights are missing or belong to another network.
    """
    imagenet = _find_imagenet(environment, job)
    check_frozen(job, loaded="model" in environment.channels or imagenet is not None)
    if job.seed is not None:
        mx.random.seed(job.seed)
        np.random.seed(job.seed)  # MXNet's initialisers draw from both
    network = create_network(job.algorithm, job.num_classes, job.backbone, **_norm(job, devices))
    network.windows = job.windows
    initialize_weights(network)
    loaded: set[str] = set()
    if "model" in environment.channels:
        loaded = _load_earlier(network, environment, job)
    elif imagenet and job.backbone:
        loaded = load_pretrained(network, job.backbone, imagenet)
    freeze_layers(network, job, loaded)
    network.collect_params().reset_ctx(devices)
    network.hybridize()
    return network


def _find_imagenet(environment: Environment, job: Hyperparameters) -> Path | None:
    """Return the file that the backbone starts from, or None; says once what of the job has no effect."""
    passed_over = {
        "channel model goes before it": "model" in environment.channels,
        "use_pretrained_model is False": not job.use_pretrained_model,
        f"{job.algorithm} has no backbone; a whole network belongs into channel model": job.backbone is None,
    }
    for reason, holds in passed_over.items():
        if holds and CHANNEL in environment.channels:
            LOG.warning("channel %s is not used: %s", CHANNEL, reason)
            break
    if job.reset_head and "model" not in environment.channels:
        LOG.warning("_reset_head has no effect: there is no channel model")
    if job.backbone is None and job.use_pretrained_model and "model" not in environment.channels:
        LOG.warning(
            "%s starts from random weights: there are no ImageNet weights of it; give the channel model a network that "
            "was trained before (a job's model.tar.gz, or GluonCV's or imgclsmob's file of one)",
            job.algorithm,
        )
    return None if any(passed_over.values()) or not job.backbone else find_pretrained(environment, job.backbone)


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


def _load_earlier(network: SegmentationNetwork, environment: Environment, job: Hyperparameters) -> set[str]:
    """Load what is in the channel `model`, a bare network or an earlier job's model; returns the names loaded."""
    folder = environment.channels["model"].path
    if bare := find_bare(folder):
        return load_network(network, job, bare, str(bare))
    with opened_model(folder) as model:
        settings = artifacts.read_model_settings(model.directory, model.source)
        earlier = artifacts.read_image_range(model.directory, model.source)
        if earlier and earlier != job.scaled_range:
            told = model.source, *earlier, job.image_range or "not set"
            LOG.warning("%s was trained with _image_range=%d,%d, which is %s in this job. Set the same range.", *told)
        path = model.directory / artifacts.BEST_WEIGHTS
        return load_network(network, job, path, f"{path.name} of {model.source}", settings)
