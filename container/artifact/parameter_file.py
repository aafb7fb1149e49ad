"""Completeness check of MXNet parameter files, without MXNet.

MXNet ignores the result of fclose. If the disk is full, a file can lose its last page without an error.
"""

from __future__ import annotations

import math
import os
import struct
from pathlib import Path
from typing import BinaryIO

_LIST_MAGIC = 0x112
_ARRAY_MAGICS = (0xF993FAC9, 0xF993FACA)  # of MXNet 1.x: with MXNet shapes, with NumPy shapes
_DENSE = 0
_ITEM_BYTES = (4, 8, 2, 1, 4, 1, 8, 1, 2, 2, 4, 8, 2)  # by type flag: float32, float64, float16, uint8, int32, …
_MAX_AXES = 32


def check_parameter_file(path: Path) -> None:
    """Raise ValueError that describes the error unless `path` contains all arrays and names that its headers list."""
    with path.open("rb") as file:
        _Walk(file).check()


class _Walk:
    """One pass over a file that reads the headers and skips the values of the arrays."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._size = os.fstat(file.fileno()).st_size

    def check(self) -> None:
        if self._read("QQ")[0] != _LIST_MAGIC:
            raise ValueError("it does not start like an MXNet parameter file")
        (arrays,) = self._read("Q")
        for number in range(arrays):
            self._step_over_array(f"array {number + 1} of {arrays}")
        (names,) = self._read("Q")
        if names not in (0, arrays):
            raise ValueError(f"it has {arrays} arrays but {names} names")
        for _ in range(names):
            self._skip(self._read("Q")[0], "the names")
        if self._file.tell() != self._size:
            raise ValueError(f"{self._size - self._file.tell()} bytes follow the last name")

    def _step_over_array(self, which: str) -> None:
        magic, storage, axes = self._read("Iii")
        if magic not in _ARRAY_MAGICS or storage != _DENSE or not 0 <= axes <= _MAX_AXES:
            raise ValueError(f"{which} has no header that is known")
        shape = self._read(f"{axes}q")
        if not axes and magic == _ARRAY_MAGICS[0]:
            return  # an array that was never set has only these fields
        _, _, kind = self._read("iii")
        if not 0 <= kind < len(_ITEM_BYTES) or min(shape, default=0) < 0:
            raise ValueError(f"{which} has no header that is known")
        self._skip(math.prod(shape) * _ITEM_BYTES[kind], which)

    def _read(self, layout: str) -> tuple[int, ...]:
        count = struct.calcsize(f"<{layout}")
        data = self._file.read(count)
        if len(data) < count:
            raise ValueError(f"it is truncated after {self._size} bytes")
        return struct.unpack(f"<{layout}", data)

    def _skip(self, count: int, what: str) -> None:
        if self._file.tell() + count > self._size:
            raise ValueError(f"it is truncated after {self._size} bytes, within {what}")
        self._file.seek(count, os.SEEK_CUR)
