"""Segments of a JPEG file, without metadata and embedded data.

https://www.w3.org/Graphics/JPEG/itu-t81.pdf, annex B. Nothing is decoded here.
"""

from __future__ import annotations

import dataclasses
import re
import struct
from collections.abc import Iterator

from container.codecs.header import DecodeError, Header, corrupt_error, exif_orientation, truncated_error

SIGNATURE = b"\xff\xd8\xff"
END = b"\xff\xd9"
# after complete data, these bytes change no pixel; each value fills any block, and any interval between two restarts
FILLERS = [
    b"".join(bytes([value]) * 4096 + bytes([0xFF, 0xD0 + number]) for number in range(8))
    for value in (0x55, 0xAA, 0x00, 0x33, 0xC5)
]

_EOI, _SOS = 0xD9, 0xDA
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_DECODABLE = {0xC0: "baseline", 0xC1: "extended", 0xC2: "progressive", 0xC9: "arithmetic", 0xCA: "arithmetic"}
_PROGRESSIVE = {0xC2, 0xCA}
_SEGMENTS = {*range(0xC0, 0xD0), *range(0xDA, 0xF0), 0xFE}  # markers with a length
_ALONE = {0x01, *range(0xD0, 0xD8)}
_MODES = {1: "L", 3: "RGB", 4: "CMYK"}
_NEEDED_APP = {0xE0: 14, 0xEE: 12}  # minimum lengths of JFIF and Adobe segments, which define the color space
_ANY_MARKER = re.compile(rb"\xff([^\x00\xff])")
_NEXT_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])")  # within a scan: FF00 is data, FFD0 to FFD7 are restarts
_LARGE = 2**20  # bytes
_WINDOW = 2**16  # bytes per search, which takes about 1 ms and blocks all other threads
_FEW = 9
_FILL = b"\xff" * 1024
_MAX_MARKERS = 2**14
_MAX_SCANS = 100  # encoders write up to about 15


@dataclasses.dataclass
class _Parts:
    """Content of the segments that were read."""

    header: Header | None = None
    frame: int = 0
    components: bytes = b""
    scans: list[bytes] = dataclasses.field(default_factory=list)
    orientation: int = 1

    def complete_header(self) -> Header:
        if self.header is None:
            raise corrupt_error("JPEG", "the image data has no header")
        return dataclasses.replace(self.header, orientation=self.orientation)


def read_header(data: bytes) -> Header:
    """Read the header from the start of a file; raises TruncatedImageError if it does not contain the header."""
    parts = _Parts()
    try:
        for marker, start, end in _segments(data):
            _add_segment(parts, marker, memoryview(data)[start + 4 : end])
            if marker == _SOS:
                break
    except DecodeError:
        if parts.header is None:
            raise
    return parts.complete_header()


def pixel_data(data: bytes) -> tuple[list[memoryview], bool]:
    """Return the parts of the file that the pixels depend on, and whether the file has an end marker.

    Segments that do not affect pixels (EXIF with its thumbnail, ICC and XMP, comments) and all bytes after the image
    are excluded. Raises DecodeError for too many scans, and TruncatedImageError if data outside a scan is truncated.
    """
    view, parts = memoryview(data), _Parts()
    buffers = [view[:2]]
    first = end = 0
    for marker, start, stop in _segments(data):
        if marker == _EOI:
            end = stop
            break
        _add_segment(parts, marker, view[start + 4 : stop])
        if marker == _SOS and not first:
            first = start
        if not first and _is_needed(marker, stop - start - 4):
            buffers.append(view[start:stop])
    if not parts.scans:
        raise truncated_error("JPEG", "before the image data")
    parts.complete_header()
    if not end and not _all_is_sent(parts):
        raise truncated_error("JPEG", "between scans")
    return [*buffers, _scans(data, first, end or _end_of_data(data))], end > 0


def _end_of_data(data: bytes) -> int:
    """Return the end of the data of the last scan in a file without an end marker.

    Padding and half an end marker are not data.
    """
    end = _length_without(data, b"\xff")
    if data[end - _FEW : end].strip(b"\0"):  # a few zeros at the end are data
        return end
    end = _length_without(data, b"\0\xff")
    while data[end : end + 2] == b"\xff\0":  # FF00 is also data
        end += 2
    return end


def _length_without(data: bytes, padding: bytes) -> int:
    """Return the length of the data without the padding at the end."""
    for end in range(len(data), 0, -_WINDOW):
        start = max(0, end - _WINDOW)
        if length := len(data[start:end].rstrip(padding)):
            return start + length
    return 0


def _scans(data: bytes, start: int, end: int) -> memoryview:
    """Return the bytes of the scans, without long runs of fill bytes, for which a decoder needs minutes."""
    if end - start > _LARGE and data.find(_FILL, start, end) >= 0:
        windows = (data[place : min(place + _WINDOW, end)] for place in range(start, end, _WINDOW))
        return memoryview(b"".join(re.sub(rb"\xff{2,}", b"\xff", window) for window in windows))
    return memoryview(data)[start:end]


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield marker, start, and end of each segment, up to the end marker or the end of the data of the last scan."""
    position, scanning = 2, False
    for _ in range(_MAX_MARKERS):
        found = _search(_NEXT_MARKER if scanning else _ANY_MARKER, data, position)
        if found is None:
            if scanning:
                return
            raise truncated_error("JPEG", "before the image data")
        marker, start, position = found[1][0], found.start(), found.end()
        if marker == _EOI:
            yield marker, start, position
            return
        if marker in _ALONE or (scanning and marker not in _SEGMENTS):
            continue  # the decoder reports errors within a scan
        if marker not in _SEGMENTS:
            raise corrupt_error("JPEG", f"the marker FF{marker:02X} is not allowed before the image data")
        length = struct.unpack_from(">H", data, position)[0] if position + 2 <= len(data) else 2
        position += max(length, 2)
        if position > len(data):
            raise truncated_error("JPEG", "before the image data" if not scanning else "between scans")
        yield marker, start, position
        scanning = scanning or marker == _SOS
    raise corrupt_error("JPEG", f"it has more than {_MAX_MARKERS} segments")


def _search(pattern: re.Pattern[bytes], data: bytes, position: int) -> re.Match[bytes] | None:
    """Search in small steps, so that other threads can run."""
    while position < len(data):
        if found := pattern.search(data, position, position + _WINDOW + 1):
            return found
        position += _WINDOW
    return None


def _add_segment(parts: _Parts, marker: int, content: memoryview) -> None:
    if marker in _FRAMES:
        if parts.header:
            raise corrupt_error("JPEG", "it has two headers")
        parts.header, parts.frame, parts.components = _frame(marker, content), marker, bytes(content[6::3])
    elif marker == _SOS:
        parts.scans.append(bytes(content))
        if len(parts.scans) > _MAX_SCANS:
            raise DecodeError(f"the JPEG has more than {_MAX_SCANS} scans. Save it with fewer scans, or as PNG")
    elif marker == 0xE1 and bytes(content[:6]) == b"Exif\0\0" and parts.orientation == 1:
        parts.orientation = exif_orientation(content)


def _frame(marker: int, content: memoryview) -> Header:
    if len(content) < 6:
        raise corrupt_error("JPEG", "the header is too short")
    bits, height, width, components = struct.unpack_from(">BHHB", content)
    if marker not in _DECODABLE:
        raise DecodeError(
            f"the JPEG uses an unsupported encoding (SOF{marker - 0xC0}). Save it as a baseline JPEG or as PNG"
        )
    if bits != 8:
        raise DecodeError(f"the JPEG has {bits} bits per sample. Save it with 8 bits, or as PNG")
    if components not in _MODES:
        raise DecodeError(f"the JPEG has {components} channels. Save it with 1, 3, or 4 channels")
    if not (width and height):
        raise corrupt_error("JPEG", f"the header specifies {width}×{height} pixels")
    return Header("JPEG", width, height, _MODES[components], bits)


def _is_needed(marker: int, length: int) -> bool:
    if marker == 0xFE or 0xE0 <= marker <= 0xEF:
        return length >= _NEEDED_APP.get(marker, 2**16)
    return True


def _all_is_sent(parts: _Parts) -> bool:
    """Return whether the scans contain all bits of all coefficients of every component."""
    missing = {component: [True] * 64 for component in parts.components}
    for scan in parts.scans:
        count = scan[0] if scan else 0
        if len(scan) < 4 + 2 * count:
            return False
        start, end, bits = scan[1 + 2 * count : 4 + 2 * count] if parts.frame in _PROGRESSIVE else (0, 63, 0)
        for component in scan[1 : 1 + 2 * count : 2]:
            if component in missing and end < 64:
                missing[component][start : end + 1] = [bool(bits & 15)] * (end + 1 - start)
    return not any(map(any, missing.values()))
