"""Pillow decoders that reject truncated and corrupt images."""

from __future__ import annotations

import bisect
import io
import itertools
import threading
from typing import BinaryIO

from PIL import Image, ImageFile

from container.codecs.header import DecodeError, Header, corrupt_error, truncated_error

_SMALL = 2**20  # bytes; copying fewer bytes is faster than reading the buffers separately
_MARKS: dict[str, int | tuple[int, ...]] = {
    "1": 255,
    "L": 165,
    "P": 165,
    "I;16": 0xA55A,
    "LA": (165, 90),
    "RGB": (165, 90, 17),
    "RGBA": (165, 90, 17, 204),
}

Image.MAX_IMAGE_PIXELS = None  # `max_pixels` of read_header is the only limit

_strictness = threading.Lock()
_lenient = 0  # how many times LOAD_TRUNCATED_IMAGES of Pillow was found on


def decode(buffers: list[memoryview], header: Header, is_reduced: bool = False) -> Image.Image:
    """Decode the parts of one image; raises DecodeError.

    A JPEG can be reduced to gray and to about an eighth of its sides, which is fast. The last rows of a PNG can be
    missing without an error, see `may_lack_rows`.
    """
    try:
        return _strictly(buffers, header, is_reduced)
    except (MemoryError, DecodeError):
        raise
    except Exception as error:  # Pillow decoders can raise any exception for malformed bytes
        if "truncated" in str(error):
            raise truncated_error(header.format, "inside the image data") from error
        raise corrupt_error(header.format, str(error)) from error


def may_lack_rows(image: Image.Image) -> bool:
    """Return whether the last row was possibly not decoded."""
    return image.getpixel((0, image.height - 1)) == _MARKS[image.mode]


def _mark(image: Image.Image) -> None:
    """Write a rare color into the last row, which Pillow overwrites when it decodes that row.

    Pillow accepts a PNG that ends after some of its rows, and sets the missing rows to zero.
    """
    target = Image.new(image.mode, image.size, None)
    target.putpixel((0, image.height - 1), _MARKS[image.mode])
    image.im = target.im


def _strictly(buffers: list[memoryview], header: Header, is_reduced: bool) -> Image.Image:
    """Decode with Pillow while LOAD_TRUNCATED_IMAGES is off, so that a truncated image is an error.

    Another library can set it: importing GluonCV does, in any thread at any time. It is turned off before decoding. If
    it was possibly on during decoding, the image is decoded again.
    """
    global _lenient
    while True:
        if ImageFile.LOAD_TRUNCATED_IMAGES:
            with _strictness:
                _lenient += 1
                ImageFile.LOAD_TRUNCATED_IMAGES = False
        before = _lenient
        image = Image.open(open_buffers(buffers), formats=(header.format,))
        if image.size != (header.width, header.height):
            raise corrupt_error(header.format, "it has two headers")
        if header.format == "PNG":
            _mark(image)
        if is_reduced:
            image.draft("L", (max(1, header.width // 8), max(1, header.height // 8)))
        image.load()
        if not ImageFile.LOAD_TRUNCATED_IMAGES and _lenient == before:
            return image


def open_buffers(buffers: list[memoryview]) -> BinaryIO:
    """Open the buffers as one readable file. Copying a large PNG instead takes 4% of its decoding time."""
    if sum(map(len, buffers)) <= _SMALL:
        return io.BytesIO(b"".join(buffers))
    return io.BufferedReader(_ConcatenatedReader(buffers))


class _ConcatenatedReader(io.RawIOBase):
    """Reader of several buffers as one file."""

    def __init__(self, buffers: list[memoryview]) -> None:
        self._buffers = [buffer for buffer in buffers if len(buffer)]
        self._ends = list(itertools.accumulate(map(len, self._buffers)))
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._ends[-1]}[whence]
        self._position = max(0, start + offset)
        return self._position

    def readinto(self, target: memoryview) -> int:  # type: ignore[override]
        index = bisect.bisect_right(self._ends, self._position)
        if index == len(self._buffers):
            return 0
        buffer = self._buffers[index]
        start = self._position - (self._ends[index] - len(buffer))
        count = min(len(target), len(buffer) - start)
        target[:count] = buffer[start : start + count]
        self._position += count
        return count
