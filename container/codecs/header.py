"""Image headers: size and format from the first bytes, and the errors of unusable images."""

from __future__ import annotations

import dataclasses
import struct
from typing import Literal

Orientation = Literal["ignore", "apply"]

_ORIENTATION = 0x0112
_NUMBERS = {1: "B", 3: "H", 4: "I"}  # from TIFF types to format characters of struct


class DecodeError(ValueError):
    """The bytes are not a usable image. The text is the reason, without the file name."""


class NotAnImageError(DecodeError):
    """The bytes are not a JPEG or PNG."""


class TooManyPixelsError(DecodeError):
    """The image has more pixels than allowed, according to its header. Nothing was decoded."""


class TruncatedImageError(DecodeError):
    """The image is truncated. A caller that read only the start of a file must read more."""


@dataclasses.dataclass(frozen=True)
class Header:
    """Properties of an image from its header, in the pixel order of the file."""

    format: str  # "JPEG" or "PNG"
    width: int
    height: int
    mode: str  # of Pillow: "1", "L", "P", "I;16", "LA", "RGB", "RGBA", or "CMYK"
    bits: int  # per sample
    orientation: int = 1  # of EXIF, 1 to 8; from 5 on, the image is shown with width and height swapped

    def shape(self, orientation: Orientation = "ignore") -> tuple[int, int]:
        """Return height and width as stored, or as shown if the orientation is applied."""
        turned = orientation == "apply" and self.orientation >= 5
        return (self.width, self.height) if turned else (self.height, self.width)


def corrupt_error(kind: str, why: str) -> DecodeError:
    """Return the error for a JPEG or PNG with invalid data."""
    return DecodeError(f"the {kind} image is corrupt: {why}")


def truncated_error(kind: str, where: str) -> TruncatedImageError:
    """Return the error for a JPEG or PNG that is truncated."""
    return TruncatedImageError(f"the {kind} image is corrupt: it is truncated {where}")


def exif_orientation(tiff: bytes | memoryview) -> int:
    """Read the orientation from EXIF data, which have the layout of a TIFF file; 1 if there is no valid value."""
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
    except (KeyError, struct.error):  # not EXIF, not a number, or an offset outside the data
        pass
    return 1
