"""RecordIO framing of MXNet and of SageMaker AI Pipe mode.

A record is one or more parts. A part: the magic word, a word whose top 3 bits say which part it is and whose low 29
bits are the length, the payload, zeros up to a multiple of 4 bytes; all words are little-endian. The payload is split
wherever it holds the magic word at a multiple of 4 bytes, and that word is left out: the reader puts it back.
https://github.com/dmlc/dmlc-core/blob/main/include/dmlc/recordio.h

Ours stays because MXNet's reader would bring MXNet into the server and opens files only, no stream with a deadline, and
SageMaker's client's does not put split records together.
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
_BLOCK = 2**20  # words that are compared at once
_HEADER = struct.Struct("<II")
_MAGIC_BYTES = struct.pack("<I", MAGIC)


class RecordIOError(ValueError):
    """The stream is no RecordIO from a certain byte on; the text names the byte."""


class RecordTooLongError(ValueError):
    """The payload is longer than a part's length can say."""


def frame(*payload: bytes | bytearray | memoryview) -> list[bytes | memoryview]:
    """Return the buffers that, one after the other, are the payload's record; the payload is not copied.

    It may come in several buffers; all but the last must be whole words long. Raises RecordTooLong when a part would
    be longer than 2^29 - 1 bytes.
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
    """Give the bytes at which the magic word stands, with little memory."""
    for start in range(0, len(words), _BLOCK):
        yield from ((np.flatnonzero(words[start : start + _BLOCK] == MAGIC) + start) * 4).tolist()


def read_records(stream: BinaryIO) -> Iterator[bytes]:
    """Yield the payload of every record until the stream ends, reading not a byte beyond the record it yields.

    `stream` is what `open(path, "rb")` returns, whose own buffer may be ahead. Raises RecordIOError for a stream
    that is not RecordIO or that ends within a record.
    """
    offset = 0
    while header := _read(stream, _HEADER.size):
        start = offset
        kind, payload, offset = _read_part(stream, header, offset)
        if kind == _WHOLE:
            yield payload
            continue
        if kind != _FIRST:
            raise RecordIOError(f"the part at byte {start} continues a record that was never begun")
        parts = [payload]
        while kind != _LAST:
            kind, payload, end = _read_part(stream, _read(stream, _HEADER.size), offset)
            if kind not in (_MIDDLE, _LAST):
                raise RecordIOError(f"at byte {offset} a new record begins within the one from byte {start}")
            parts.append(payload)
            offset = end
        yield _MAGIC_BYTES.join(parts)


def _header(kind: int, length: int) -> bytes:
    if length > MAX_LENGTH:
        raise RecordTooLongError(f"{length} bytes do not fit into a RecordIO record, {MAX_LENGTH} do")
    return _HEADER.pack(MAGIC, kind << 29 | length)


def _read_part(stream: BinaryIO, header: bytes, offset: int) -> tuple[int, bytes, int]:
    """Read the rest of the part whose header stood at byte `offset`: its kind, its payload and the byte after it."""
    if len(header) < _HEADER.size:
        raise RecordIOError(f"the stream ends at byte {offset + len(header)}, within a record's header")
    magic, word = _HEADER.unpack(header)
    kind, length = word >> 29, word & MAX_LENGTH
    if magic != MAGIC or kind > _LAST:
        raise RecordIOError(f"no RecordIO record begins at byte {offset}: there is {header.hex(' ')}")
    payload = _read(stream, length)
    padding = _read(stream, -length % 4) if len(payload) == length else b""
    end = offset + _HEADER.size + len(payload) + len(padding)
    if len(payload) + len(padding) < length + -length % 4:
        raise RecordIOError(f"the stream ends at byte {end}, within the record part of {length} bytes at byte {offset}")
    return kind, payload, end


def _read(stream: BinaryIO, length: int) -> bytes:
    """Read `length` bytes, fewer only where the stream ends; a pipe may give them in pieces."""
    data = stream.read(length)
    if len(data) in (0, length):
        return data
    pieces = [data]
    missing = length - len(data)
    while missing and (data := stream.read(missing)):
        pieces.append(data)
        missing -= len(data)
    return b"".join(pieces)
