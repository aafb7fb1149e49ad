"""Safe reading of MXNet parameter files, without MXNet.

Layout, little-endian: magic number, 8 reserved bytes, number of arrays, arrays, number of names, names. An array has a
magic number, storage type, dimensions, device (two words), element type, and elements.
"""

from __future__ import annotations

import math
import os
import struct
from typing import IO, Any

import numpy as np

from container.arrays import Array

MAGIC = struct.pack("<Q", 0x112)

_ARRAY_MAGICS = (0xF993FAC9, 0xF993FACA)  # dense or sparse since MXNet 0.12; with NumPy shapes since 1.6
_DENSE = 0
_TYPES = {0: np.float32, 1: np.float64, 2: np.float16, 3: np.uint8, 4: np.int32, 5: np.int8, 6: np.int64}
_MOST_ARRAYS, _MOST_DIMENSIONS, _LONGEST_NAME = 10_000, 8, 1000


def read_params(file: IO[bytes]) -> dict[str, Array]:
    """Read all arrays by name, with at most the size of the file in memory; raises ValueError with the reason."""
    reader = _Reader(file)
    if file.read(len(MAGIC)) != MAGIC:
        raise ValueError("it does not start like a parameter file")
    reader.read("<Q")
    arrays = [_read_array(reader) for _ in range(_bounded(reader.read("<Q"), _MOST_ARRAYS, "arrays"))]
    count = _bounded(reader.read("<Q"), _MOST_ARRAYS, "names")
    names = [reader.take(_bounded(reader.read("<Q"), _LONGEST_NAME, "letters")).decode() for _ in range(count)]
    if len(names) != len(arrays) or len(set(names)) != len(names):
        raise ValueError(f"it has {len(arrays)} arrays but {len(set(names))} different names")
    if reader.left:
        raise ValueError(f"{reader.left} bytes follow the last name")
    return dict(zip(names, arrays, strict=True))


class _Reader:
    """Reader of a file that raises ValueError if bytes are missing."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._size = os.fstat(file.fileno()).st_size

    @property
    def left(self) -> int:
        return self._size - self._file.tell()

    def take(self, count: int) -> bytes:
        if count > self.left:
            raise ValueError(f"it is truncated: {count - self.left} bytes are missing")
        return self._file.read(count)

    def read(self, form: str) -> Any:
        """Read one number."""
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]


def _read_array(reader: _Reader) -> Array:
    magic, storage = reader.read("<I"), reader.read("<i")
    if magic not in _ARRAY_MAGICS or storage != _DENSE:
        raise ValueError("it contains an array of an unsupported kind")
    dimensions = _bounded(reader.read("<i"), _MOST_DIMENSIONS, "dimensions")
    shape = tuple(reader.read("<q") for _ in range(dimensions))
    reader.take(8)  # the device
    kind = reader.read("<i")
    if kind not in _TYPES or not shape or min(shape) < 1:
        raise ValueError(f"it contains an array of type {kind} and shape {shape}")
    elements = np.dtype(_TYPES[kind]).newbyteorder("<")
    return np.frombuffer(reader.take(math.prod(shape) * elements.itemsize), elements).reshape(shape)


def _bounded(number: int, most: int, what: str) -> int:
    if not 0 <= number <= most:
        raise ValueError(f"it specifies {number} {what}, and the limit is {most}")
    return int(number)
