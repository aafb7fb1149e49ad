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
# The largest network (psp, resnet-101, 254 classes) has 273 MB of float32 weights; twice that is float64.
WEIGHTS_LIMIT = 550 * 2**20  # also of a graph, whose weights are float32

_SETTINGS = ("num_classes", "algorithm", "backbone")


@contextlib.contextmanager
def replacing(path: Path, needed: int = 0, check: Callable[[Path], None] | None = None) -> Iterator[Path]:
    """Give a temporary path whose file takes `path`'s place, complete and synced, when the block succeeds.

    This is the door through which every lasting file goes. `needed` is its size in bytes as far as it is known: what
    does not fit is refused before it is begun. `check` reads the written file back, and raises ValueError when it is
    not whole. Raises PlatformError with path, cause, bytes needed and bytes free for whatever goes wrong with the disk;
    the block's other errors, a file that it cannot read among them, pass as they are.
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
    """Write `content`, complete or not at all."""

    def check(written: Path) -> None:
        if written.stat().st_size != len(content):
            raise ValueError(f"{written.stat().st_size} of {len(content)} bytes are there")

    with replacing(path, len(content), check) as temporary:
        temporary.write_bytes(content)


def remove_temporaries(folder: Path) -> None:
    """Remove what `replacing` left of this directory's own files when a process was killed: it would be packed."""
    for name in (HYPERPARAMETERS, BEST_WEIGHTS, LAST_WEIGHTS, CLASSES, GRAPH, INT8_GRAPH, CHECK):
        _remove_leftovers(folder / name)


def write_json(path: Path, content: Any) -> None:
    """Write `content` as readable JSON, complete or not at all; a name that is not UTF-8 is written as it is shown."""
    write_bytes(path, (json.dumps(_shown(content), indent=2) + "\n").encode())


def _shown(content: Any) -> Any:
    """Escape the bytes of file names that are not UTF-8: other programs refuse JSON that holds them."""
    if isinstance(content, str):
        return re.sub("[\ud800-\udfff]+", lambda found: printable(found[0]), content)
    if isinstance(content, Mapping):
        return {_shown(key): _shown(value) for key, value in content.items()}
    return [_shown(value) for value in content] if isinstance(content, (list, tuple)) else content


def write_weights(path: Path, save: Callable[[str], None], needed: int = 0) -> None:
    """Let `save` write a parameter file that appears at `path` only when it is complete.

    Without `needed` the file's predecessor says how many bytes it takes.
    """
    needed = needed or _size(path)
    with replacing(path, needed, check_parameter_file) as temporary:
        try:
            save(str(temporary))
        except RuntimeError as error:  # MXNet's own, which has no number
            raise OSError(last_line(error)) from error


def copy_file(source: Path, path: Path) -> None:
    """Copy a file, complete or not at all; raises OSError that names `source` when it cannot be read."""
    size = source.stat().st_size

    def check(written: Path) -> None:
        if written.stat().st_size != size:
            raise ValueError(f"{written.stat().st_size} of {size} bytes are there")

    with replacing(path, size, check) as temporary:
        shutil.copyfile(source, temporary)


def _read_back(temporary: Path, check: Callable[[Path], None] | None) -> None:
    if not _size(temporary):
        raise OSError("it is empty")
    if check:
        try:
            check(temporary)
        except ValueError as error:
            raise OSError(f"it is not whole: {error}") from error


def _is_of_writing(error: OSError, folder: Path) -> bool:
    """Tell a disk that cannot be written to from another file that the block could not read."""
    if error.filename is None or error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
        return True
    names = [Path(os.fsdecode(name)) for name in (error.filename, error.filename2) if isinstance(name, (str, bytes))]
    return any(name == folder or name in folder.parents or name.parent == folder for name in names)


def _remove_leftovers(path: Path) -> None:
    """Remove what a killed process left of an earlier attempt: it would go into the archive."""
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.*"):
        if leftover.suffix[1:].isdecimal():
            with contextlib.suppress(OSError):
                leftover.unlink()


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def read_model_settings(model_dir: Path, source: str = "") -> dict[str, Any]:
    """Read what a model directory says of its network: `num_classes`, `algorithm` and, if it has one, `backbone`.

    The built-in's own `hyperparams.json` is read too, and whatever an SDK makes of a value (`"21"`, `"\\"fcn\\""`).
    Raises ClientError that names the file and the keys when the directory holds no usable model; `source` is what it
    calls the directory, where a person knows it by another name.
    """
    source = source or str(model_dir)
    settings = _read_settings(model_dir, source, _SETTINGS)
    if reason_against(read_schema()["properties"]["backbone"], settings["algorithm"]):
        del settings["backbone"]
    return settings


def read_windows(model_dir: Path, source: str = "") -> Windows | None:
    """Read in which windows the model computes large images; None: at once. Raises as `read_model_settings` does."""
    found = _read_settings(model_dir, source or str(model_dir), ("algorithm", "_window", "_overlap"))
    if found["_window"] is None or reason_against(read_schema()["properties"]["_window"], found["algorithm"]):
        return None
    return Windows(found["_window"], found["_overlap"])


def read_image_range(model_dir: Path, source: str = "") -> Range | None:
    """Read which samples of 16-bit images become 0 and 255. None: they keep their high byte. Raises ClientError."""
    source = source or str(model_dir)
    text = _read_settings(model_dir, source, ("_image_range",))["_image_range"]
    try:
        return parse_range(text) if text else None
    except ValueError as error:
        name = f"{HYPERPARAMETERS} of {source}"
        raise ClientError(f"{name} does not describe a model", [f"_image_range: {error}"]) from error


def _read_settings(model_dir: Path, source: str, keys: Iterable[str]) -> dict[str, Any]:
    """Read these keys of a model's description; None for one that is neither given nor has a default."""
    path = model_dir / HYPERPARAMETERS
    for needed in (path, model_dir / BEST_WEIGHTS):
        if not needed.is_file():
            raise ClientError(
                f"{source} holds no model: {needed.name} is missing; "
                "unpack a training job's model.tar.gz there, its files at the top"
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
        is_left_out = key not in written and key not in read_schema()["required"]
        if not is_left_out and not allows(entry, settings[key]):
            faults.append(f"{key} must be {describe_range(entry)}, not {json.dumps(written.get(key))}")
    if faults:
        raise ClientError(f"{name} does not describe a model", faults)
    return settings
