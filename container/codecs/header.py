"""Image headers: size and format from the first bytes, and the errors of unusable images."""

from __future__ import annotations

import dataclasses
import struct
from typing import Literal

Orientation = Literal["ignore", "apply"]

_ORIENTATION = 0x0112
_NUMBERS = {1: "B", 3: "H", 4: "I"}  # TIFF's types, as struct calls them


class DecodeError(ValueError):
    """The bytes are no picture that can be used; the text says why, without naming the file."""


class NotAnImageError(DecodeError):
    """The bytes are something else than a JPEG or PNG."""


class TooManyPixelsError(DecodeError):
    """The picture's header announces more pixels than are allowed; nothing was decoded."""


class TruncatedImageError(DecodeError):
    """The bytes end too early: whoever read only the beginning of a file has to read on."""


@dataclasses.dataclass(frozen=True)
class Header:
    """A picture as its header announces it, in the order of the file's pixels."""

    format: str  # "JPEG" or "PNG"
    width: int
    height: int
    mode: str  # Pillow's: "1", "L", "P", "I;16", "LA", "RGB", "RGBA" or "CMYK"
    bits: int  # of one sample
    orientation: int = 1  # EXIF's, 1 to 8; from 5 on the picture is shown with width and height changed

    def shape(self, orientation: Orientation = "ignore") -> tuple[int, int]:
        """Return height and width, as stored or as shown."""
        turned = orientation == "apply" and self.orientation >= 5
        return (self.width, self.height) if turned else (self.height, self.width)


def damaged(kind: str, why: str) -> DecodeError:
    """Make the error of a JPEG or PNG whose data are wrong."""
    return DecodeError(f"the {kind} image is damaged: {why}")


def cut_off(kind: str, where: str) -> TruncatedImageError:
    """Make the error of a JPEG or PNG that ends too early."""
    return TruncatedImageError(f"the {kind} image is damaged: it is cut off {where}")


def exif_orientation(tiff: bytes | memoryview) -> int:
    """Read the orientation from EXIF data, which are laid out as a TIFF file; 1 where they say nothing usable."""
    try:
        tiff = memoryview(tiff)[6:] if bytes(tiff[:6]) == b"Exif\0\0" else tiff
        order = {b"II": "<", b"MM": ">"}[bytes(tiff[:2])]
        (start,) = struct.unpack_from(order + "I", tiff, 4)
        (count,) = struct.unpack_from(order + "H", tiff, start)
        for place in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind = struct.unpack_from(order + "HH", tiff, place)
            if tag == _ORIENTATION:
                (value,) = struct.unpack_from(order + _NUMBERS[kind], tiff, place + 8)
                return value if 1 <= value <= 8 else 1
    except (KeyError, struct.error):  # not EXIF, not a number, or an offset that leads out
        pass
    return 1
