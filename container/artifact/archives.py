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
_ARCHIVE_LIMIT = 8 * WEIGHTS_LIMIT  # best and last weights, two graphs, and whatever else a person puts beside them


@dataclasses.dataclass(frozen=True)
class OpenedModel:
    """A model's directory; `source` is what a person knows it by: its archive, or the directory itself."""

    directory: Path
    source: str


@contextlib.contextmanager
def open_model_channel(folder: Path) -> Iterator[OpenedModel]:
    """Give the one model below `folder`, which is there unpacked, or as a tar archive, whatever its name.

    Raises ClientError that names the archives: when there are several models or none, and when one is damaged or
    holds what no training job writes. What is no model is passed over with a warning.
    """
    with tempfile.TemporaryDirectory() as scratch:
        models, others, strangers = _find(folder, Path(scratch))
        if len(models) > 1:
            raise ClientError(
                f"{folder} holds {len(models)} models, but a job starts from one: give the S3 address of one archive "
                "alone, or remove the others",
                [model.source for model in models],
            )
        if not models:
            raise ClientError(
                f"{folder} holds no model: put one training job's model.tar.gz there, with {HYPERPARAMETERS} and "
                f"{BEST_WEIGHTS} at its top",
                others or strangers or ["it is empty"],
            )
        for other in others:
            LOG.warning("passed over: %s", other)
        yield models[0]


def _find(folder: Path, scratch: Path) -> tuple[list[OpenedModel], list[str], list[str]]:
    """Return the models below `folder`, the archives and directories that lack something of one, and other files.

    Archives that are models are unpacked into `scratch`.
    """
    models, others, strangers = [], [], []
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
            strangers.append(f"{path} is no tar archive")
        else:
            others.append(f"{path} {lacks}")
    for directory, names in unpacked.items():
        if lacking := _LIMITS.keys() - names:
            others.append(f"{directory} lacks {lacking.pop()}")
        else:
            models.append(OpenedModel(directory, str(directory)))
    return models, others, strangers


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _unpack(path: Path, target: Path) -> str | None:
    """Unpack a model from the archive `path`; say what it lacks of one: an empty text for nothing, None if no archive.

    Raises ClientError that names an archive which is damaged, or a model's but with something else in it.
    """
    content = unpack(path, target, _LIMITS, _ARCHIVE_LIMIT)
    if content is None:
        return None
    if lacking := [name for name in _LIMITS if name not in content.found]:
        nested = [name for name in content.nested if PurePosixPath(name).name in lacking]
        return f"lacks {lacking[0]} at its top" + (f" (it holds {nested[0]})" if nested else "")
    if content.faults:
        raise ClientError(
            f"{path} holds what no training job writes: pack the plain files of one anew, as in "
            f"tar -czf model.tar.gz {HYPERPARAMETERS} {BEST_WEIGHTS}",
            content.faults,
        )
    return ""
