"""Weights of complete models: GluonCV, imgclsmob, and earlier jobs.

A bare parameter file says by its names and shapes what network it is of.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from container.arrays import Array
from container.artifact import model_directory
from container.errors import ClientError
from container.hyperparameters import Hyperparameters
from container.mx.weights.formats import is_weight_file, read_weights
from container.mx.weights.names import check_fit, to_gluoncv
from container.mx.weights.shapes import architecture_name, classifiers, model_shapes

_DECODERS = {"head.psp.": "psp", "head.aspp.": "deeplab", "head.block.": "fcn"}  # psp and deeplab have a block, too
_THIRD_STAGES = {(2, False): "resnet-18", (6, False): "resnet-34", (6, True): "resnet-50", (23, True): "resnet-101"}


def find_bare(folder: Path) -> Path | None:
    """Return the one weight file in a channel that holds no archive and no hyperparams.json; None otherwise.

    Raises ClientError when there are several.
    """
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith(".")]
    found = [path for path in files if is_weight_file(path)]
    if not found or any(path.name == model_directory.HYPERPARAMETERS or _is_archive(path) for path in files):
        return None
    if len(found) > 1:
        raise ClientError(f"channel model must hold one network; it holds {', '.join(path.name for path in found[:5])}")
    return found[0]


def _is_archive(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b" or path.suffix.lower() == ".tar"


def read_network(path: Path, called: str) -> tuple[dict[str, Array], dict[str, Any]]:
    """Read a segmentation network's weights under GluonCV's names, and what network it is.

    That is `num_classes`, `algorithm` and, if it has one, `backbone`. Raises ClientError that names the file as it is
    `called` when it is damaged or of another network.
    """
    instead = "take a job's model.tar.gz, or a .params file of GluonCV's FCN, PSPNet, DeepLabV3 or FastSCNN"
    raw = read_weights(path, instead, called)
    try:
        weights = to_gluoncv(raw)
        return weights, _describe(weights)
    except ValueError as error:
        raise ClientError(f"{called} is no segmentation network that can be trained here: {error}") from error


def fit_network(
    job: Hyperparameters, path: Path, called: str, settings: Mapping[str, Any] | None = None
) -> dict[str, Array]:
    """Read the whole network in `path` that the job starts from; the auxiliary head may be missing.

    With `_reset_head` the classifying layers are left out. `settings` are what an archive says of the network; of a
    bare file its weights say it. Raises ClientError that names the file as it is `called`.
    """
    weights, found = read_network(path, called)
    check_same(settings or found, job)
    skipped = classifiers(job.algorithm) if job.reset_head else ()
    weights = {name: array for name, array in weights.items() if not name.startswith(skipped)}
    if not any(name.startswith("auxlayer.") for name in weights):
        skipped += ("auxlayer.",)
    shapes = model_shapes(job.algorithm, job.backbone, job.num_classes)
    needed = {name: shape for name, shape in shapes.items() if not name.startswith(skipped)}
    try:
        check_fit(weights, needed, optional=lambda name: False)
    except ValueError as error:
        architecture = architecture_name(job.algorithm, job.backbone, job.num_classes)
        raise ClientError(f"{called} does not fit this network ({architecture}): {error}") from error
    return weights


def check_same(settings: Mapping[str, Any], job: Hyperparameters) -> None:
    """Raise ClientError when the network in channel `model` is not the job's, its number of classes aside if reset."""
    for name, value in settings.items():
        if value == getattr(job, name) or (name == "num_classes" and job.reset_head):
            continue
        remedy = f"incremental training needs the same network: set {name}={value}"
        if name == "num_classes":
            remedy = "_reset_head=True starts the classifying layers afresh and keeps the rest"
        raise ClientError(f"the model in channel model has {name}={value}, this job {getattr(job, name)}: {remedy}")


def _describe(weights: Mapping[str, Array]) -> dict[str, Any]:
    """Say what network the weights are of; raises ValueError when it is none of ours."""
    if (fast := weights.get("classifier.conv.weight")) is not None:
        return {"num_classes": fast.shape[0], "algorithm": "fastscnn"}
    found = (algorithm for prefix, algorithm in _DECODERS.items() if any(name.startswith(prefix) for name in weights))
    algorithm = next(found, None)
    last = weights.get("head.block.4.weight")
    if algorithm is None or last is None:
        raise ValueError("it has no decoder; the weights of a backbone alone belong into channel pretrained")
    blocks = {name.split(".")[1] for name in weights if name.startswith("layer3.")}
    kind = len(blocks), "layer3.0.conv3.weight" in weights
    if kind not in _THIRD_STAGES:
        known = ", ".join(_THIRD_STAGES.values())
        raise ValueError(f"its backbone, with {kind[0]} blocks in stage 3, is none of {known}")
    return {"num_classes": last.shape[0], "algorithm": algorithm, "backbone": _THIRD_STAGES[kind]}
