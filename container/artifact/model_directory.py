"""The model directory: file names, reading, and atomic writing."""

from __future__ import annotations

import contextlib
import errno
import glob
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from container.artifact import disk
from container.artifact.json_files import LIMIT, parse_object, read_limited
from container.artifact.parameter_file import check_parameter_file
from container.errors import ClientError, last_line, printable
from container.geometry.windows import Windows
from container.image_range import Range, parse_range
from container.schema import allows, convert, describe_range, read_schema, reason_against

HYPERPARAMETERS = "hyperparams.json"
BEST_WEIGHTS = "model_best.params"
LAST_WEIGHTS = "model_algo-1"
CLASSES = "classes.json"
GRAPH = "model.onnx"
INT8_GRAPH = "model.int8.onnx"
CHECK = "check.json"

HYPERPARAMETERS_LIMIT = LIMIT  # bytes
# The largest model (psp, resnet-101, 254 classes) has 273 MB of float32 weights. Float64 needs twice as much.
WEIGHTS_LIMIT = 550 * 2**20  # also of an ONNX model, whose weights are float32

_SETTINGS = ("num_classes", "algorithm", "backbone")


@contextlib.contextmanager
def replacing(path: Path, needed: int = 0, check: Callable[[Path], None] | None = None) -> Iterator[Path]:
    """Yield a temporary path whose file replaces `path`, complete and synced, when the block succeeds.

    All permanent files are written with this function. `needed` is the size in bytes, if known: a file that does not
    fit fails before it is written. `check` reads the written file and raises ValueError if it is incomplete. Raises
    PlatformError with path, cause, bytes needed, and bytes free for any error of the disk. Other errors of the block,
    for example a source file that it cannot read, are not changed.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(path)
        disk.check_space(path, needed)
        yield temporary
        disk.sync(temporary)
        _read_back(temporary, check)
        temporary.replace(path)
        disk.sync(path.parent)
    except OSError as error:
        if not _is_of_writing(error, path.parent):
            raise
        needed, full = max(needed, _size(temporary)), disk.is_full(path)
        _remove_leftovers(path)
        raise disk.write_failure(path, needed, error, full) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path`, completely or not at all."""

    def check(written: Path) -> None:
        if written.stat().st_size != len(content):
            raise ValueError(f"it has {written.stat().st_size} of {len(content)} bytes")

    with replacing(path, len(content), check) as temporary:
        temporary.write_bytes(content)


def remove_temporaries(folder: Path) -> None:
    """Remove temporary files that `replacing` left in this directory when a process was killed.

    SageMaker AI would add them to the model artifacts.
    """
    for name in (HYPERPARAMETERS, BEST_WEIGHTS, LAST_WEIGHTS, CLASSES, GRAPH, INT8_GRAPH, CHECK):
        _remove_leftovers(folder / name)


def write_json(path: Path, content: Any) -> None:
    """Write `content` as indented JSON, completely or not at all; bytes of names that are not UTF-8 are escaped."""
    write_bytes(path, (json.dumps(_shown(content), indent=2) + "\n").encode())


def _shown(content: Any) -> Any:
    """Escape the bytes of file names that are not UTF-8, because other programs reject JSON that contains them."""
    if isinstance(content, str):
        return re.sub("[\ud800-\udfff]+", lambda found: printable(found[0]), content)
    if isinstance(content, Mapping):
        return {_shown(key): _shown(value) for key, value in content.items()}
    return [_shown(value) for value in content] if isinstance(content, (list, tuple)) else content


def write_weights(path: Path, save: Callable[[str], None], needed: int = 0) -> None:
    """Write a parameter file with `save`; the file appears at `path` only when it is complete.

    If `needed` is 0, the size of the file that is replaced is used instead.
    """
    needed = needed or _size(path)
    with replacing(path, needed, check_parameter_file) as temporary:
        try:
            save(str(temporary))
        except RuntimeError as error:  # raised by MXNet, without an error number
            raise OSError(last_line(error)) from error


def copy_file(source: Path, path: Path) -> None:
    """Copy a file, completely or not at all; raises OSError that names `source` if it cannot be read."""
    size = source.stat().st_size

    def check(written: Path) -> None:
        if written.stat().st_size != size:
            raise ValueError(f"it has {written.stat().st_size} of {size} bytes")

    with replacing(path, size, check) as temporary:
        shutil.copyfile(source, temporary)


def _read_back(temporary: Path, check: Callable[[Path], None] | None) -> None:
    if not _size(temporary):
        raise OSError("the file is empty after writing")
    if check:
        try:
            check(temporary)
        except ValueError as error:
            raise OSError(f"the file is incomplete after writing: {error}") from error


def _is_of_writing(error: OSError, folder: Path) -> bool:
    """Return whether an error comes from writing to `folder`, and not from another file that the block read."""
    if error.filename is None or error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
        return True
    names = [Path(os.fsdecode(name)) for name in (error.filename, error.filename2) if isinstance(name, (str, bytes))]
    return any(name == folder or name in folder.parents or name.parent == folder for name in names)


def _remove_leftovers(path: Path) -> None:
    """Remove temporary files of a killed process, which would otherwise become part of the model artifacts."""
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.*"):
        if leftover.suffix[1:].isdecimal():
            with contextlib.suppress(OSError):
                leftover.unlink()


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def read_model_settings(model_dir: Path, source: str = "") -> dict[str, Any]:
    """Read the settings of a model: `num_classes`, `algorithm`, and `backbone` if the architecture has one.

    Also reads the `hyperparams.json` of the built-in algorithm, and values as an SDK encodes them (`"21"`,
    `"\\"fcn\\""`). Raises ClientError that names the file and the keys if the directory does not contain a usable
    model. `source` is the name of the directory in messages, if a user knows it by another name.
    """
    source = source or str(model_dir)
    settings = _read_settings(model_dir, source, _SETTINGS)
    if reason_against(read_schema()["properties"]["backbone"], settings["algorithm"]):
        del settings["backbone"]
    return settings


def read_windows(model_dir: Path, source: str = "") -> Windows | None:
    """Read the sliding windows of the model, or None if it processes complete images; raises ClientError."""
    settings = _read_settings(model_dir, source or str(model_dir), ("algorithm", "_window", "_overlap"))
    if settings["_window"] is None or reason_against(read_schema()["properties"]["_window"], settings["algorithm"]):
        return None
    return Windows(settings["_window"], settings["_overlap"])


def read_image_range(model_dir: Path, source: str = "") -> Range | None:
    """Read which samples of 16-bit images become 0 and 255, or None to keep the high byte; raises ClientError."""
    source = source or str(model_dir)
    text = _read_settings(model_dir, source, ("_image_range",))["_image_range"]
    try:
        return parse_range(text) if text else None
    except ValueError as error:
        name = f"{HYPERPARAMETERS} of {source}"
        raise ClientError(f"{name} does not describe a model", [f"_image_range: {error}"]) from error


def _read_settings(model_dir: Path, source: str, keys: Iterable[str]) -> dict[str, Any]:
    """Read `keys` from the description of a model; a key that is missing and has no default is None."""
    path = model_dir / HYPERPARAMETERS
    for needed in (path, model_dir / BEST_WEIGHTS):
        if not needed.is_file():
            raise ClientError(
                f"{source} does not contain a model: {needed.name} is missing. "
                "Extract the model.tar.gz of a training job there, with its files at the top level."
            )
    for large in (BEST_WEIGHTS, GRAPH, INT8_GRAPH):
        if (size := _size(model_dir / large)) > WEIGHTS_LIMIT:
            raise ClientError(f"{large} of {source} has {size} bytes. The limit is {WEIGHTS_LIMIT}.")
    name = f"{HYPERPARAMETERS} of {source}"
    content = read_limited(path, name, HYPERPARAMETERS_LIMIT)
    written, properties = parse_object(content, name), read_schema()["properties"]
    settings, faults = {}, []
    for key in keys:
        entry = properties[key]
        settings[key] = convert(written.get(key, entry.get("default")), entry)
        is_omitted = key not in written and key not in read_schema()["required"]
        if not is_omitted and not allows(entry, settings[key]):
            faults.append(f"{key} must be {describe_range(entry)}, not {json.dumps(written.get(key))}")
    if faults:
        raise ClientError(f"{name} does not describe a model", faults)
    return settings
