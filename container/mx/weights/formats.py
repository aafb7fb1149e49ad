"""Weight file formats: MXNet .params (also in a zip) and .safetensors.

This module does not need MXNet, and does not execute code from files: PyTorch pickles are rejected.
"""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import numpy as np
import safetensors

from container.arrays import Array
from container.artifact import parameter_file
from container.errors import ClientError
from container.mx.weights import zipped

_LONGEST_HEADER = 2**20  # bytes; the header of resnet-101 has 60,000
_FLOATS = {"F16": np.float16, "F32": np.float32, "F64": np.float64}
_COUNTERS = ".num_batches_tracked"  # integer that PyTorch stores for each batch normalization; not used
_FIRST_OF_PICKLES = tuple(b"\x80" + bytes([protocol]) for protocol in range(2, 6))


def is_weight_file(path: Path) -> bool:
    """Return whether `path` starts like a weight file; pickles count."""
    return _kind(path) is not None


def read_weights(path: Path, instead: str, called: str = "") -> dict[str, Array]:
    """Read every array of a weight file as float32, with the names from the file.

    Raises ClientError that calls the file `called` if it is corrupt, of another kind, or a pickle. `instead` is a
    sentence that describes the files to use. The memory use is at most twice the size of the file.
    """
    called = called or str(path)
    kind = _kind(path)
    if kind is None:
        raise ClientError(f"{called} is not a weight file. {instead}")
    if kind == "pickle":
        raise ClientError(f"{called} is a PyTorch pickle, which can execute any code when it is read. {instead}")
    try:
        if kind == "safetensors":
            weights = _read_safetensors(path)
        else:
            with zipped.opened(path) as file:
                weights = parameter_file.read_parameter_file(file)
        return {name: _checked(name, array) for name, array in weights.items()}
    except (ValueError, safetensors.SafetensorError) as error:
        raise ClientError(f"{called} is corrupt, or not a weight file of a model: {error}. {instead}") from error


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, for the log."""
    hashed = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(2**20):
            hashed.update(piece)
    return hashed.hexdigest()


def _kind(path: Path) -> str | None:
    """Return `params`, `zip`, `safetensors`, or `pickle`, depending on the first bytes; None for other files."""
    with path.open("rb") as file:
        first = file.read(9)
    if first.startswith(zipped.ZIP_MAGIC):
        return "pickle" if _is_torch_zip(path) else "zip"
    if first.startswith(parameter_file.MAGIC):
        return "params"
    if first[8:9] == b"{":
        return "safetensors"
    return "pickle" if first.startswith(_FIRST_OF_PICKLES) else None


def _is_torch_zip(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(Path(name).name == "data.pkl" for name in archive.namelist())
    except zipfile.BadZipFile:
        return False  # extraction reports the error


def _read_safetensors(path: Path) -> dict[str, Array]:
    size = path.stat().st_size
    if size > zipped.LARGEST:
        raise ValueError(f"it has {size} bytes, and the limit is {zipped.LARGEST}")
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if length > _LONGEST_HEADER:
        raise ValueError(f"its header has {length} bytes, and the limit is {_LONGEST_HEADER}")
    with safetensors.safe_open(str(path), "numpy") as tensors:
        names = [name for name in tensors.keys() if not name.endswith(_COUNTERS)]  # noqa: SIM118
        for name in names:
            if (kind := tensors.get_slice(name).get_dtype()) not in _FLOATS:
                raise ValueError(f"{name} has the type {kind}. Save it as F32")
        return {name: tensors.get_tensor(name) for name in names}


def _checked(name: str, array: Array) -> Array:
    """Return the array as float32; raises ValueError for values that are not valid weights."""
    if array.dtype.kind != "f":
        raise ValueError(f"{name} has the type {array.dtype}. Save it as float32")
    with np.errstate(over="ignore"):
        floats = array.astype(np.float32, copy=False)
    if not np.isfinite(floats).all():
        raise ValueError(f"{name} contains numbers that are not finite")
    if name.endswith("running_var") and floats.min(initial=0) < 0:
        raise ValueError(f"{name} contains negative variances")
    return floats
