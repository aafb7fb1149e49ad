"""Pillow decoders that reject truncated and corrupt images."""

from __future__ import annotations

import threading

from PIL import Image, ImageFile

from container.codecs.chunks import Buffers, open_buffers
from container.codecs.header import DecodeError, Header, corrupt_error, truncated_error

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


def decode(picture: Buffers, header: Header, is_reduced: bool = False) -> Image.Image:
    """Decode the parts of one image; raises DecodeError.

    A JPEG can be reduced to gray and to about an eighth of its sides, which is fast. The last rows of a PNG can be
    missing without an error, see `may_lack_rows`.
    """
    try:
        return _strictly(picture, header, is_reduced)
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


def _strictly(picture: Buffers, header: Header, is_reduced: bool) -> Image.Image:
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
        image = Image.open(open_buffers(picture), formats=(header.format,))
        if image.size != (header.width, header.height):
            raise corrupt_error(header.format, "it has two headers")
        if header.format == "PNG":
            _mark(image)
        if is_reduced:
            image.draft("L", (max(1, header.width // 8), max(1, header.height // 8)))
        image.load()
        if not ImageFile.LOAD_TRUNCATED_IMAGES and _lenient == before:
            return image
