"""MXNet parameter files: safe reading, and a check for completeness, without MXNet.

Layout, little-endian: magic number, 8 reserved bytes, number of arrays, arrays, number of names, names. An array has a
magic number, storage type, number of dimensions, dimensions, device (two words), element type, and elements. A name has
a length and UTF-8 characters.
"""

from __future__ import annotations

import dataclasses
import math
import os
import struct
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from container.arrays import Array

MAGIC = struct.pack("<Q", 0x112)

_CLASSIC, _NUMPY = 0xF993FAC9, 0xF993FACA  # magic numbers of arrays since MXNet 0.12, and with NumPy shapes since 1.6
_DENSE = 0
_TYPES: tuple[npt.DTypeLike, ...] = (
    *("<f4", "<f8", "<f2", "u1", "<i4", "i1", "<i8", "?", "<i2", "<u2", "<u4", "<u8"),
    [("bfloat16", "<u2")],
)
_MOST_ARRAYS, _MOST_DIMENSIONS, _LONGEST_NAME = 10_000, 32, 1000


@dataclasses.dataclass(frozen=True)
class _StoredArray:
    """Position and layout of the elements of one array. An array without elements was never assigned."""

    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]


def check_parameter_file(path: Path) -> None:
    """Raise ValueError with the reason if `path` does not contain all arrays and names that its headers list.

    MXNet ignores the result of fclose. If the disk is full, a file can lose its last page without an error.
    """
    with path.open("rb") as file:
        _read_layout(file)


def read_parameter_file(file: IO[bytes]) -> dict[str, Array]:
    """Read all arrays by name, with at most the size of the file in memory; raises ValueError with the reason."""
    stored, names = _read_layout(file)
    if len(set(names)) != len(stored):
        raise ValueError(f"it has {len(stored)} arrays but {len(set(names))} different names")
    return {name.decode(): _read_array(file, each) for name, each in zip(names, stored, strict=True)}


def _read_array(file: IO[bytes], stored: _StoredArray) -> Array:
    if min(stored.shape, default=0) < 1:
        raise ValueError(f"it contains an array of the shape {stored.shape}")
    file.seek(stored.offset)
    content = file.read(math.prod(stored.shape) * stored.dtype.itemsize)
    return np.frombuffer(content, stored.dtype).reshape(stored.shape)


def _read_layout(file: IO[bytes]) -> tuple[list[_StoredArray], list[bytes]]:
    """Read the headers and the names, and skip the elements."""
    if _take(file, len(MAGIC)) != MAGIC:
        raise ValueError("it does not start like an MXNet parameter file")
    _take(file, 8)
    count = _read_number(file, "<Q", _MOST_ARRAYS, "arrays")
    stored = [_read_header(file) for _ in range(count)]
    names = [
        _take(file, _read_number(file, "<Q", _LONGEST_NAME, "characters"))
        for _ in range(_read_number(file, "<Q", _MOST_ARRAYS, "names"))
    ]
    if len(names) not in (0, count):
        raise ValueError(f"it has {count} arrays but {len(names)} names")
    if left := _bytes_left(file):
        raise ValueError(f"{left} bytes follow the last name")
    return stored, names


def _read_header(file: IO[bytes]) -> _StoredArray:
    magic, storage = struct.unpack("<Ii", _take(file, 8))
    if magic not in (_CLASSIC, _NUMPY) or storage != _DENSE:
        raise ValueError(f"it contains an array of an unsupported kind (magic number {magic:#x}, storage {storage})")
    dimensions = _read_number(file, "<i", _MOST_DIMENSIONS, "dimensions")
    shape = struct.unpack(f"<{dimensions}q", _take(file, 8 * dimensions))
    if not dimensions and magic == _CLASSIC:
        return _StoredArray(file.tell(), (0,), np.dtype("<f4"))  # an array that was never assigned ends here
    *_, kind = struct.unpack("<3i", _take(file, 12))
    if not 0 <= kind < len(_TYPES) or min(shape, default=0) < 0:
        raise ValueError(f"it contains an array of type {kind} and shape {shape}")
    stored = _StoredArray(file.tell(), shape, np.dtype(_TYPES[kind]))
    length = math.prod(shape) * stored.dtype.itemsize
    _check_left(file, length)  # a seek can pass the end of the file
    file.seek(length, os.SEEK_CUR)
    return stored


def _read_number(file: IO[bytes], layout: str, most: int, what: str) -> int:
    (number,) = struct.unpack(layout, _take(file, struct.calcsize(layout)))
    if not 0 <= number <= most:
        raise ValueError(f"it specifies {number} {what}, and the limit is {most}")
    return int(number)


def _take(file: IO[bytes], count: int) -> bytes:
    _check_left(file, count)
    return file.read(count)


def _check_left(file: IO[bytes], count: int) -> None:
    if (left := _bytes_left(file)) < count:
        size = file.tell() + left
        raise ValueError(f"it is truncated after {size} bytes: {count - left} bytes are missing")


def _bytes_left(file: IO[bytes]) -> int:
    return os.fstat(file.fileno()).st_size - file.tell()
