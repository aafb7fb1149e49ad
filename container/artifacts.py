"""The model directory: what its files are called, and how they are read and written."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from container.errors import ClientError, printable
from container.json_files import parse_object
from container.schema import allows, convert, describe_range, read_schema

HYPERPARAMETERS = "hyperparams.json"
BEST_WEIGHTS = "model_best.params"
LAST_WEIGHTS = "model_algo-1"
CLASSES = "classes.json"
GRAPH = "model.onnx"
INT8_GRAPH = "model.int8.onnx"

HYPERPARAMETERS_LIMIT = 2**20  # bytes

_SETTINGS = ("num_classes", "algorithm", "backbone")


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
    """Write `content` as readable JSON, atomically; a name that is not UTF-8 is written as it is shown."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(_shown(content), indent=2) + "\n")


def _shown(content: Any) -> Any:
    """Escape the bytes of file names that are not UTF-8: other programs refuse JSON that holds them."""
    if isinstance(content, str):
        return re.sub("[\ud800-\udfff]+", lambda found: printable(found[0]), content)
    if isinstance(content, Mapping):
        return {_shown(key): _shown(value) for key, value in content.items()}
    return [_shown(value) for value in content] if isinstance(content, (list, tuple)) else content


def write_weights(path: Path, save: Callable[[str], None]) -> None:
    """Let `save` write a parameter file that appears at `path` only when it is complete."""
    with replacing(path) as temporary:
        save(str(temporary))


def read_model_settings(model_dir: Path, source: str = "") -> dict[str, Any]:
    """Read what a model directory says of its network: `num_classes`, `algorithm` and `backbone`.

    The built-in's own `hyperparams.json` is read too, and whatever an SDK makes of a value (`"21"`, `"\\"fcn\\""`).
    Raises ClientError that names the file and the keys when the directory holds no usable model; `source` is what it
    calls the directory, where a person knows it by another name.
    """
    source = source or str(model_dir)
    path = model_dir / HYPERPARAMETERS
    for needed in (path, model_dir / BEST_WEIGHTS):
        if not needed.is_file():
            raise ClientError(
                f"{source} holds no model: {needed.name} is missing; "
                "unpack a training job's model.tar.gz there, its files at the top"
            )
    name = f"{HYPERPARAMETERS} of {source}"
    with path.open("rb") as file:
        content = file.read(HYPERPARAMETERS_LIMIT + 1)
    if len(content) > HYPERPARAMETERS_LIMIT:
        raise ClientError(f"{name} is no training job's: it has more than {HYPERPARAMETERS_LIMIT} bytes")
    written, properties = parse_object(content, name), read_schema()["properties"]
    settings, faults = {}, []
    for key in _SETTINGS:
        entry = properties[key]
        settings[key] = convert(written.get(key, entry.get("default")), entry)
        if not allows(entry, settings[key]):
            faults.append(f"{key} must be {describe_range(entry)}, not {json.dumps(written.get(key))}")
    if faults:
        raise ClientError(f"{name} does not describe a model", faults)
    return settings
