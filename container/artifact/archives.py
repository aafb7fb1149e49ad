"""The `model` channel: find and extract model artifacts of an earlier job, without trusting them."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from container.artifact.model_directory import BEST_WEIGHTS, HYPERPARAMETERS, HYPERPARAMETERS_LIMIT
from container.artifact.model_directory import WEIGHTS_LIMIT as WEIGHTS_LIMIT
from container.artifact.unpacking import unpack
from container.errors import ClientError

LOG = logging.getLogger(__name__)

_LIMITS = {HYPERPARAMETERS: HYPERPARAMETERS_LIMIT, BEST_WEIGHTS: WEIGHTS_LIMIT}
_ARCHIVE_LIMIT = 8 * WEIGHTS_LIMIT  # best and last weights, two ONNX models, and other files that a user added


@dataclasses.dataclass(frozen=True)
class OpenedModel:
    """A directory that contains a model. `source` is its name in messages: the archive, or the directory itself."""

    directory: Path
    source: str


@contextlib.contextmanager
def open_model_channel(folder: Path) -> Iterator[OpenedModel]:
    """Yield the only model below `folder`, which contains extracted files or a tar archive of any name.

    Raises ClientError that lists the archives if there is not exactly one model, if an archive is corrupt, or if a
    model archive contains entries that no training job writes. Other files are skipped with a warning.
    """
    with tempfile.TemporaryDirectory() as scratch:
        models, others, unusable = _find(folder, Path(scratch))
        if len(models) > 1:
            raise ClientError(
                f"{folder} contains {len(models)} models, but a job starts from one model. Set the S3 URI of a single "
                "archive, or remove the others",
                [model.source for model in models],
            )
        if not models:
            raise ClientError(
                f"{folder} does not contain a model. Add the model.tar.gz of one training job, with {HYPERPARAMETERS} "
                f"and {BEST_WEIGHTS} at the top level",
                others or unusable or ["the directory is empty"],
            )
        for other in others:
            LOG.warning("Skipped in the model channel: %s", other)
        yield models[0]


def _find(folder: Path, scratch: Path) -> tuple[list[OpenedModel], list[str], list[str]]:
    """Return three lists: models below `folder`, archives and directories with incomplete models, and other files.

    Archives that contain a model are extracted into `scratch`.
    """
    models, others, unusable = [], [], []
    unpacked: dict[Path, set[str]] = {}
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and not _hidden(path.relative_to(folder))]
    for number, path in enumerate(files):
        if path.name in _LIMITS:
            unpacked.setdefault(path.parent, set()).add(path.name)
            continue
        target = scratch / str(number)
        target.mkdir()
        lacks = _unpack(path, target)
        if lacks == "":
            models.append(OpenedModel(target, str(path)))
            continue
        shutil.rmtree(target)
        if lacks is None:
            unusable.append(f"{path} is not a tar archive")
        else:
            others.append(f"{path} {lacks}")
    for directory, names in unpacked.items():
        if lacking := _LIMITS.keys() - names:
            others.append(f"{directory} does not contain {lacking.pop()}")
        else:
            models.append(OpenedModel(directory, str(directory)))
    return models, others, unusable


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _unpack(path: Path, target: Path) -> str | None:
    """Extract a model from the archive `path`.

    Returns an empty string if the model is complete, a description of the missing file if it is not, and None if
    `path` is not an archive. Raises ClientError if the archive is corrupt, or contains a model and unexpected entries.
    """
    content = unpack(path, target, _LIMITS, _ARCHIVE_LIMIT)
    if content is None:
        return None
    if lacking := [name for name in _LIMITS if name not in content.found]:
        nested = [name for name in content.nested if PurePosixPath(name).name in lacking]
        return f"does not contain {lacking[0]} at the top level" + (f" (it contains {nested[0]})" if nested else "")
    if content.faults:
        raise ClientError(
            f"{path} contains entries that no training job writes. Create the archive again from the regular files of "
            f"one job, for example with tar -czf model.tar.gz {HYPERPARAMETERS} {BEST_WEIGHTS}",
            content.faults,
        )
    return ""
