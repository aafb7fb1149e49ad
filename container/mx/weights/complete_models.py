"""Weights of complete models: GluonCV, imgclsmob, and earlier jobs.

The names and shapes in a parameter file without a description determine its model architecture.
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

_DECODERS = {"head.psp.": "psp", "head.aspp.": "deeplab", "head.block.": "fcn"}  # psp and deeplab also have a block
_THIRD_STAGES = {(2, False): "resnet-18", (6, False): "resnet-34", (6, True): "resnet-50", (23, True): "resnet-101"}


def find_bare(folder: Path) -> Path | None:
    """Return the only weight file in a channel without archives and hyperparams.json; None otherwise.

    Raises ClientError if there is more than one weight file.
    """
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith(".")]
    found = [path for path in files if is_weight_file(path)]
    if not found or any(path.name == model_directory.HYPERPARAMETERS or _is_archive(path) for path in files):
        return None
    if len(found) > 1:
        names = ", ".join(path.name for path in found[:5])
        raise ClientError(f"channel model contains more than one weight file: {names}. Remove all but one.")
    return found[0]


def _is_archive(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b" or path.suffix.lower() == ".tar"


def read_network(path: Path, called: str) -> tuple[dict[str, Array], dict[str, Any]]:
    """Read the weights of a segmentation model under the GluonCV names, and its settings.

    The settings are `num_classes`, `algorithm`, and `backbone` if the architecture has one. Raises ClientError that
    calls the file `called` if it is corrupt or belongs to an unsupported model.
    """
    instead = "Use the model.tar.gz of a job, or a .params file of FCN, PSPNet, DeepLabV3, or FastSCNN from GluonCV."
    raw = read_weights(path, instead, called)
    try:
        weights = to_gluoncv(raw)
        return weights, _describe(weights)
    except ValueError as error:
        raise ClientError(f"{called} is not a supported segmentation model: {error}") from error


def fit_network(
    job: Hyperparameters, path: Path, called: str, settings: Mapping[str, Any] | None = None
) -> dict[str, Array]:
    """Read the complete model in `path` from which the job starts; the auxiliary head can be missing.

    With `_reset_head`, the classification layers are excluded. `settings` are the settings of the model from an
    archive. Without them, the weights determine the settings. Raises ClientError that calls the file `called`.
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
        raise ClientError(f"{called} does not match the model of this job ({architecture}): {error}") from error
    return weights


def check_same(settings: Mapping[str, Any], job: Hyperparameters) -> None:
    """Raise ClientError if the model in the `model` channel differs from that of the job.

    With `_reset_head`, the number of classes can differ.
    """
    for name, value in settings.items():
        if value == getattr(job, name) or (name == "num_classes" and job.reset_head):
            continue
        remedy = f"Set {name}={value}, because incremental training needs the same model architecture."
        if name == "num_classes":
            remedy = "To reinitialize the classification layers and keep the other weights, set _reset_head=True."
        raise ClientError(
            f"the model in channel model has {name}={value}, but this job has {name}={getattr(job, name)}. {remedy}"
        )


def _describe(weights: Mapping[str, Array]) -> dict[str, Any]:
    """Return the settings of the model from its weights; raises ValueError if the architecture is not supported."""
    if (fast := weights.get("classifier.conv.weight")) is not None:
        return {"num_classes": fast.shape[0], "algorithm": "fastscnn"}
    found = (algorithm for prefix, algorithm in _DECODERS.items() if any(name.startswith(prefix) for name in weights))
    algorithm = next(found, None)
    last = weights.get("head.block.4.weight")
    if algorithm is None or last is None:
        raise ValueError("it has no decoder. Use the pretrained channel for the weights of a backbone")
    blocks = {name.split(".")[1] for name in weights if name.startswith("layer3.")}
    kind = len(blocks), "layer3.0.conv3.weight" in weights
    if kind not in _THIRD_STAGES:
        known = ", ".join(_THIRD_STAGES.values())
        raise ValueError(f"its backbone has {kind[0]} blocks in stage 3. Use one of {known}")
    return {"num_classes": last.shape[0], "algorithm": algorithm, "backbone": _THIRD_STAGES[kind]}
