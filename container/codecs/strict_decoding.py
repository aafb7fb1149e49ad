"""Pillow decoders that reject truncated and corrupt images."""

from __future__ import annotations

import threading

from PIL import Image, ImageFile

from container.codecs.chunks import Pieces, open_pieces
from container.codecs.header import DecodeError, Header, cut_off, damaged

_MARKS: dict[str, int | tuple[int, ...]] = {
    "1": 255,
    "L": 165,
    "P": 165,
    "I;16": 0xA55A,
    "LA": (165, 90),
    "RGB": (165, 90, 17),
    "RGBA": (165, 90, 17, 204),
}

Image.MAX_IMAGE_PIXELS = None  # the bound is `max_pixels` of read_header: one bound, one error

_strictness = threading.Lock()
_lenient = 0  # how often Pillow's switch was found on


def decode(picture: Pieces, header: Header, is_reduced: bool = False) -> Image.Image:
    """Decode the pieces of one picture; raises DecodeError.

    A JPEG may be reduced to about an eighth of its sides and to gray, which is quick. A PNG's last rows may be missing
    nevertheless, see `may_lack_rows`.
    """
    try:
        return _strictly(picture, header, is_reduced)
    except (MemoryError, DecodeError):
        raise
    except Exception as error:  # Pillow's decoders let any exception out of malformed bytes
        if "truncated" in str(error):
            raise cut_off(header.format, "inside its image data") from error
        raise damaged(header.format, str(error)) from error


def may_lack_rows(image: Image.Image) -> bool:
    """Say whether the last row may not have been decoded."""
    return image.getpixel((0, image.height - 1)) == _MARKS[image.mode]


def _mark(image: Image.Image) -> None:
    """Give the last row a color that few images have there, for Pillow to write over.

    It takes a PNG that ends after some of its rows for a whole one, with zeros in the others.
    """
    target = Image.new(image.mode, image.size, None)
    target.putpixel((0, image.height - 1), _MARKS[image.mode])
    image.im = target.im


def _strictly(picture: Pieces, header: Header, is_reduced: bool) -> Image.Image:
    """Decode with Pillow, for which half an image is an error only until another library tells it otherwise.

    Importing GluonCV does, in whichever thread and whenever: the switch is turned off before, and what was decoded
    while it may have been on is decoded again.
    """
    global _lenient
    while True:
        if ImageFile.LOAD_TRUNCATED_IMAGES:
            with _strictness:
                _lenient += 1
                ImageFile.LOAD_TRUNCATED_IMAGES = False
        before = _lenient
        image = Image.open(open_pieces(picture), formats=(header.format,))
        if image.size != (header.width, header.height):
            raise damaged(header.format, "it has two headers")
        if header.format == "PNG":
            _mark(image)
        if is_reduced:
            image.draft("L", (max(1, header.width // 8), max(1, header.height // 8)))
        image.load()
        if not ImageFile.LOAD_TRUNCATED_IMAGES and _lenient == before:
            return image
