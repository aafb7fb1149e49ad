"""RecordIO framing of MXNet and of SageMaker AI Pipe mode.

A record has one or more parts. A part contains the magic word, a word with the kind of the part in its top 3 bits and
the length in its low 29 bits, the payload, and zeros up to a multiple of 4 bytes. All words are little-endian. If the
payload contains the magic word at a multiple of 4 bytes, it is split there without that word. The reader inserts it.
https://github.com/dmlc/dmlc-core/blob/main/include/dmlc/recordio.h

No library replaces this module. The reader of MXNet requires MXNet in the server, and opens only files, not a stream
with a deadline. The reader of the SageMaker Python SDK does not join split records.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

from container.arrays import Array

MAGIC = 0xCED7230A
MAX_LENGTH = 2**29 - 1

_WHOLE, _FIRST, _MIDDLE, _LAST = range(4)
_BLOCK = 2**20  # words per comparison
_HEADER = struct.Struct("<II")
_MAGIC_BYTES = struct.pack("<I", MAGIC)


class RecordIOError(ValueError):
    """The stream is not valid RecordIO. The text contains the position of the first invalid byte."""


class RecordTooLongError(ValueError):
    """The payload is longer than the maximum length of a part."""


def frame(*payload: bytes | bytearray | memoryview) -> list[bytes | memoryview]:
    """Return the buffers of a record with this payload, in order; the payload is not copied.

    If the payload has several buffers, the length of each except the last must be a multiple of 4 bytes. Raises
    RecordTooLongError if a part is longer than 2^29 - 1 bytes.
    """
    parts: list[list[memoryview]] = [[]]
    for buffer in payload:
        view = memoryview(buffer).cast("B")
        words = np.frombuffer(view, "<u4", count=len(view) // 4)
        start = 0
        for split in _find_magic(words):
            parts[-1].append(view[start:split])
            parts.append([])
            start = split + len(_MAGIC_BYTES)
        parts[-1].append(view[start:])
    buffers: list[bytes | memoryview] = []
    for index, part in enumerate(parts):
        last = index == len(parts) - 1
        kind = (_LAST if last else _MIDDLE) if index else (_WHOLE if last else _FIRST)
        buffers += [_header(kind, sum(map(len, part))), *part]
    return [*buffers, bytes(-sum(map(len, parts[-1])) % 4)]


def _find_magic(words: Array) -> Iterator[int]:
    """Yield the byte positions of the magic word, with little memory."""
    for start in range(0, len(words), _BLOCK):
        yield from ((np.flatnonzero(words[start : start + _BLOCK] == MAGIC) + start) * 4).tolist()


def read_records(stream: BinaryIO) -> Iterator[bytes]:
    """Yield the payload of every record until the stream ends, without reading bytes after the yielded record.

    `stream` is the result of `open(path, "rb")`, which can buffer more bytes. Raises RecordIOError if the stream is not
    RecordIO, or ends within a record.
    """
    offset = 0
    while header := _read(stream, _HEADER.size):
        start = offset
        kind, payload, offset = _read_part(stream, header, offset)
        if kind == _WHOLE:
            yield payload
            continue
        if kind != _FIRST:
            raise RecordIOError(f"the part at byte {start} continues a record that has no first part")
        parts = [payload]
        while kind != _LAST:
            kind, payload, end = _read_part(stream, _read(stream, _HEADER.size), offset)
            if kind not in (_MIDDLE, _LAST):
                raise RecordIOError(f"a new record starts at byte {offset}, within the record at byte {start}")
            parts.append(payload)
            offset = end
        yield _MAGIC_BYTES.join(parts)


def _header(kind: int, length: int) -> bytes:
    if length > MAX_LENGTH:
        raise RecordTooLongError(f"{length} bytes do not fit in a RecordIO record. The limit is {MAX_LENGTH} bytes")
    return _HEADER.pack(MAGIC, kind << 29 | length)


def _read_part(stream: BinaryIO, header: bytes, offset: int) -> tuple[int, bytes, int]:
    """Read the rest of the part whose header is at byte `offset`; returns its kind, its payload, and the next byte."""
    if len(header) < _HEADER.size:
        raise RecordIOError(f"the stream ends at byte {offset + len(header)}, within the header of a record")
    magic, word = _HEADER.unpack(header)
    kind, length = word >> 29, word & MAX_LENGTH
    if magic != MAGIC or kind > _LAST:
        raise RecordIOError(f"no RecordIO record starts at byte {offset}. The bytes there are {header.hex(' ')}")
    payload = _read(stream, length)
    padding = _read(stream, -length % 4) if len(payload) == length else b""
    end = offset + _HEADER.size + len(payload) + len(padding)
    if len(payload) + len(padding) < length + -length % 4:
        raise RecordIOError(f"the stream ends at byte {end}, within a record part of {length} bytes at byte {offset}")
    return kind, payload, end


def _read(stream: BinaryIO, length: int) -> bytes:
    """Read `length` bytes, or fewer at the end of the stream. A pipe can return fewer bytes per read."""
    data = stream.read(length)
    if len(data) in (0, length):
        return data
    pieces = [data]
    missing = length - len(data)
    while missing and (data := stream.read(missing)):
        pieces.append(data)
        missing -= len(data)
    return b"".join(pieces)
