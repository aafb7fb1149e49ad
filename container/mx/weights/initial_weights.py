"""Selection and verification of the initial weights, without MXNet."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from pathlib import Path

from container.arrays import Array
from container.artifact import model_directory
from container.artifact.archives import open_model_channel
from container.environment import Environment
from container.errors import ClientError
from container.hyperparameters import Hyperparameters
from container.mx.pretrained import CHANNEL, find_pretrained, read_pretrained
from container.mx.weights.complete_models import find_bare, fit_network
from container.mx.weights.formats import sha256

LOG = logging.getLogger(__name__)

MODEL = "model"


@dataclasses.dataclass(frozen=True)
class InitialWeights:
    """Weights by their GluonCV names, with the log line about their source."""

    arrays: Mapping[str, Array]
    source: str
    warnings: tuple[str, ...] = ()


def check_initial_weights(environment: Environment, job: Hyperparameters) -> None:
    """Raise ClientError if the job cannot start from its weights, and log the options that have no effect."""
    _explain(environment, job)
    check_frozen(job, loaded=read_initial_weights(environment, job) is not None)


def check_frozen(job: Hyperparameters, loaded: bool) -> None:
    """Raise ClientError if the job freezes weights that were not loaded."""
    frozen = [
        name
        for name, is_on in {"_freeze_backbone": job.freeze_backbone, "_freeze_batchnorm": job.freeze_batchnorm}.items()
        if is_on
    ]
    if frozen and not loaded:
        remedy = "Set use_pretrained_model=True, add the model channel" if job.backbone else "Add the model channel"
        raise ClientError(f"{' and '.join(frozen)} cannot freeze random weights. {remedy}, or omit the hyperparameter.")


def read_initial_weights(environment: Environment, job: Hyperparameters) -> InitialWeights | None:
    """Read the initial weights of the job; None for random initialization.

    The `model` channel has precedence over the `pretrained` channel, and the `pretrained` channel over the ImageNet
    weights of the container image. Raises ClientError if weights are missing, corrupt, or of another model.
    """
    if MODEL in environment.channels:
        return _read_model(environment.channels[MODEL].path, job)
    if not job.backbone or not job.use_pretrained_model:
        return None
    path = find_pretrained(environment, job.backbone)
    source = f"Loaded the initial weights of the backbone from {path} (SHA-256 {sha256(path)})"
    return InitialWeights(read_pretrained(path, job.backbone), source)


def _read_model(folder: Path, job: Hyperparameters) -> InitialWeights:
    """Read the `model` channel: a weight file, or the model of an earlier job."""
    if bare := find_bare(folder):
        return _fit(job, bare, str(bare), None)
    with open_model_channel(folder) as model:
        settings = model_directory.read_model_settings(model.directory, model.source)
        path = model.directory / model_directory.BEST_WEIGHTS
        initial = _fit(job, path, f"{path.name} of {model.source}", settings)
        earlier = model_directory.read_image_range(model.directory, model.source)
        if earlier is None or earlier == job.scaled_range:
            return initial
        warning = (
            f"{model.source} was trained with _image_range={earlier[0]},{earlier[1]}, which is "
            f"{job.image_range or 'not set'} in this job. Set the same range."
        )
        return dataclasses.replace(initial, warnings=(*initial.warnings, warning))


def _fit(job: Hyperparameters, path: Path, called: str, settings: Mapping[str, object] | None) -> InitialWeights:
    arrays = fit_network(job, path, called, settings)
    has_auxiliary = any(name.startswith("auxlayer.") for name in arrays)
    return InitialWeights(
        arrays,
        f"Loaded the initial weights from channel model: {called} (SHA-256 {sha256(path)})",
        () if has_auxiliary else (f"{called} has no auxiliary head. The head starts from random weights.",),
    )


def _explain(environment: Environment, job: Hyperparameters) -> None:
    """Log the channels and options that have no effect with the selected weights."""
    has_model = MODEL in environment.channels
    reasons = {
        "channel model has precedence": has_model,
        "use_pretrained_model is False": not job.use_pretrained_model,
        f"{job.algorithm} has no backbone. Use the model channel for a complete model": job.backbone is None,
    }
    if CHANNEL in environment.channels and (reason := next((text for text, holds in reasons.items() if holds), None)):
        LOG.warning("channel %s is not used: %s", CHANNEL, reason)
    if job.reset_head and not has_model:
        LOG.warning("_reset_head has no effect without the model channel. Add the channel, or omit _reset_head.")
    if has_model and not job.use_pretrained_model:
        LOG.info("use_pretrained_model=False has no effect, because the job starts from the weights in channel model")
    if job.backbone is None and job.use_pretrained_model and not has_model:
        LOG.warning(
            "%s starts from random weights, because no ImageNet weights exist for it. To start from a trained model, "
            "add the model channel (model.tar.gz of a job, or a weight file from GluonCV or imgclsmob).",
            job.algorithm,
        )
