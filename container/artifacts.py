"""The model directory: what its files are called, and how they are read and written."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from container.errors import ClientError

HYPERPARAMETERS = "hyperparams.json"
BEST_WEIGHTS = "model_best.params"
LAST_WEIGHTS = "model_algo-1"
CLASSES = "classes.json"
GRAPH = "model.onnx"
INT8_GRAPH = "model.int8.onnx"


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path whose file takes `path`'s place, complete and synced, when the block succeeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_temporaries(folder: Path) -> None:
    """Remove what `replacing` left of this directory's own files when a process was killed: it would be packed."""
    names = (HYPERPARAMETERS, BEST_WEIGHTS, LAST_WEIGHTS, CLASSES, GRAPH, INT8_GRAPH)
    temporary = re.compile(rf"\.({'|'.join(map(re.escape, names))})\.\d+")
    for path in folder.iterdir() if folder.is_dir() else ():
        if temporary.fullmatch(path.name):
            path.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Write `content` as readable JSON, atomically."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n")


def write_weights(path: Path, save: Callable[[str], None]) -> None:
    """Let `save` write a parameter file that appears at `path` only when it is complete."""
    with replacing(path) as temporary:
        save(str(temporary))


def read_model_settings(model_dir: Path) -> dict[str, Any]:
    """Read what a model directory says of its network: `num_classes`, `algorithm` and `backbone`.

    The built-in's own `hyperparams.json` is read too: there values may be strings. Raises ClientError
    that names the file when the directory holds no usable model.
    """
    path = model_dir / HYPERPARAMETERS
    for needed in (path, model_dir / BEST_WEIGHTS):
        if not needed.is_file():
            raise ClientError(
                f"{model_dir} holds no model: {needed.name} is missing; "
                "unpack a training job's model.tar.gz there, its files at the top"
            )
    try:
        content = json.loads(path.read_text())
        settings: dict[str, Any] = {
            "num_classes": int(content["num_classes"]),
            "algorithm": str(content.get("algorithm", "fcn")),
            "backbone": str(content.get("backbone", "resnet-50")),
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ClientError(f"{path} does not describe a model: {type(error).__name__}: {error}") from error
    if not 2 <= settings["num_classes"] <= 254:
        raise ClientError(f"{path}: num_classes must be between 2 and 254, not {settings['num_classes']}")
    return settings


@contextlib.contextmanager
def opened_model(folder: Path) -> Iterator[Path]:
    """Give the directory of the model in `folder`, which is there unpacked or as one `.tar.gz`.

    Raises ClientError that names the archive when it cannot be unpacked safely.
    """
    archives = sorted(folder.rglob("*.tar.gz"))
    if not archives:
        yield folder
        return
    with tempfile.TemporaryDirectory() as unpacked:
        try:
            with tarfile.open(archives[0], "r:gz") as archive:
                for member in archive:  # only what is known, by its own name: nothing an archive says is a path
                    name = Path(member.name).name
                    if name in (HYPERPARAMETERS, BEST_WEIGHTS) and (content := archive.extractfile(member)):
                        with content, (Path(unpacked) / name).open("wb") as target:
                            shutil.copyfileobj(content, target)
        except (tarfile.TarError, OSError, EOFError) as error:
            raise ClientError(
                f"{archives[0]} cannot be unpacked: {error}; give a training job's model.tar.gz"
            ) from error
        yield Path(unpacked)
