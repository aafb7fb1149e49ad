"""Chunks of a PNG file, without metadata.

https://www.w3.org/TR/png-3/, section 5. No pixel is decoded here.
"""

from __future__ import annotations

import dataclasses
import struct
import zlib
from collections.abc import Iterator

from container.codecs.header import DecodeError, Header, corrupt_error, exif_orientation, truncated_error

SIGNATURE = b"\x89PNG\r\n\x1a\n"

_MODES = {  # by bits and color type
    (1, 0): "1",
    (2, 0): "L",
    (4, 0): "L",
    (8, 0): "L",
    (16, 0): "I;16",
    (8, 2): "RGB",
    (16, 2): "RGB",
    (1, 3): "P",
    (2, 3): "P",
    (4, 3): "P",
    (8, 3): "P",
    (8, 4): "LA",
    (16, 4): "RGBA",
    (8, 6): "RGBA",
    (16, 6): "RGBA",
}
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by color type
_PASSES = [  # of an interlaced image: first column, first row, column step, row step
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
]
_STEP = 2**20  # bytes
_MAX_CHUNKS = 2**16
_MAX_EXIF = 2**20
_PALETTE_BYTES = 3 * 256
_IEND = memoryview(struct.pack(">I4sI", 0, b"IEND", zlib.crc32(b"IEND")))


def read_header(data: bytes) -> Header:
    """Read the header from the start of a file; raises TruncatedImageError if it does not contain the header."""
    header: Header | None = None
    try:
        for kind, start, end in _chunks(data):
            if header is None:
                header = _header(data, kind, start, end)
            elif kind == b"eXIf" and end - start <= _MAX_EXIF and _is_sound(data, start, end):
                return dataclasses.replace(header, orientation=exif_orientation(memoryview(data)[start + 8 : end - 4]))
    except DecodeError:
        if header is None:
            raise
    if header is None:
        raise truncated_error("PNG", "before the header")
    return header


def pixel_data(data: bytes) -> tuple[list[memoryview], bool]:
    """Return the parts of the file that the pixels depend on (header, palette, data), and whether it has an end marker.

    Raises DecodeError if a checksum of these parts is wrong, and TruncatedImageError if a part is truncated.
    """
    view, runs, complete = memoryview(data), [[0, len(SIGNATURE)]], False
    header: Header | None = None
    has_data = has_palette = False
    for kind, start, end in _chunks(data):
        if kind == b"IEND":
            complete = True
            break
        if header is None:
            header = _header(data, kind, start, end)
        elif _is_ancillary(kind):
            continue
        elif kind == b"IHDR":
            raise corrupt_error("PNG", "it has two headers")
        else:
            _check(data, kind, start, end)
        has_data = has_data or kind == b"IDAT"
        if kind == b"PLTE":
            if has_data:
                continue
            has_palette = True
        if runs[-1][1] == start:
            runs[-1][1] = end
        else:
            runs.append([start, end])
    if not has_data:
        raise corrupt_error("PNG", "it has no image data")
    if header and header.mode == "P" and not has_palette:
        raise corrupt_error("PNG", "it has no palette")
    return [*(view[start:end] for start, end in runs), _IEND], complete


def repack(data: bytes) -> bytes:
    """Return only the header and the image data of a valid PNG, in chunks that libpng reads without a warning."""
    parts = [SIGNATURE]
    for kind, start, end in _chunks(data):
        if kind == b"IHDR":
            parts.append(data[start:end])
        for place in range(start + 8, end - 4, _STEP) if kind == b"IDAT" else ():
            content = b"IDAT" + data[place : min(place + _STEP, end - 4)]
            parts += [struct.pack(">I", len(content) - 4), content, struct.pack(">I", zlib.crc32(content))]
    return b"".join([*parts, _IEND])


def is_interlaced(data: bytes) -> bool:
    """Return whether a PNG is interlaced: its rows are stored in several passes."""
    return data[28] != 0


def has_all_rows(data: bytes) -> bool:
    """Return whether the image data is complete; decompresses it in small steps, and only as much as necessary."""
    width, height, bits, color = struct.unpack_from(">IIBB", data, 16)
    missing = 0
    for x, y, right, down in _PASSES if is_interlaced(data) else [(0, 0, 1, 1)]:
        columns, rows = (width - x + right - 1) // right, (height - y + down - 1) // down
        missing += rows * (1 + (columns * bits * _CHANNELS[color] + 7) // 8) if columns else 0
    unpacker = zlib.decompressobj()
    try:
        for kind, start, end in _chunks(data):
            if kind == b"IDAT":
                unpacked = unpacker.decompress(memoryview(data)[start + 8 : end - 4], _STEP)
                while unpacked and missing > 0:
                    missing -= len(unpacked)
                    unpacked = unpacker.decompress(unpacker.unconsumed_tail, _STEP)
    except zlib.error:
        return False
    return missing <= 0


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield kind, start, and end of each chunk, up to IEND or to bytes after the image data that are not a chunk.

    Raises TruncatedImageError if the bytes end before or within the image data.
    """
    position, has_data = len(SIGNATURE), False
    for _ in range(_MAX_CHUNKS):
        if position + 8 > len(data):
            if has_data:
                return
            raise truncated_error("PNG", "before the image data")
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        if kind == b"IEND":
            yield kind, position, end
            return
        if not kind.isalpha() or end > len(data):
            if has_data and kind != b"IDAT":
                return
            if kind.isalpha():
                raise truncated_error("PNG", f"inside the chunk {kind.decode()}")
            raise corrupt_error("PNG", f"no chunk starts at byte {position}")
        yield kind, position, end
        position, has_data = end, has_data or kind == b"IDAT"
    raise corrupt_error("PNG", f"it has more than {_MAX_CHUNKS} chunks")


def _header(data: bytes, kind: bytes, start: int, end: int) -> Header:
    if kind == b"CgBI":
        raise DecodeError("the PNG uses the Apple extension for applications (CgBI). Save it as a standard PNG")
    if kind != b"IHDR" or end - start != 25:
        raise corrupt_error("PNG", "it does not start with a header")
    _check(data, kind, start, end)
    width, height, bits, color = struct.unpack_from(">IIBB", data, start + 8)
    mode = _MODES.get((bits, color))
    if mode is None or not (width and height):
        raise corrupt_error("PNG", f"the header specifies {width}×{height} pixels of {bits} bits in color type {color}")
    return Header("PNG", width, height, mode, bits)


def _check(data: bytes, kind: bytes, start: int, end: int) -> None:
    """Raise DecodeError for a wrong checksum, or for an unknown chunk that must not be skipped."""
    if kind not in (b"IHDR", b"PLTE", b"IDAT"):
        raise corrupt_error("PNG", f"the chunk type {kind.decode()} does not exist in PNG files")
    if not _is_sound(data, start, end):
        raise corrupt_error("PNG", f"the chunk {kind.decode()} has a wrong checksum")
    if kind == b"PLTE" and ((end - start - 12) % 3 or not 0 < end - start - 12 <= _PALETTE_BYTES):
        raise corrupt_error("PNG", f"the palette has {end - start - 12} bytes")


def _is_ancillary(kind: bytes) -> bool:
    return bool(kind[0] & 0x20)


def _is_sound(data: bytes, start: int, end: int) -> bool:
    """Return whether the checksum of the chunk is correct."""
    (declared,) = struct.unpack_from(">I", data, end - 4)
    return bool(zlib.crc32(memoryview(data)[start + 4 : end - 4]) == declared)
