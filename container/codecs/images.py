"""Photographs and annotations: JPEG and PNG bytes to arrays."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageFile

_FORMATS = ("JPEG", "PNG")
_JPEG_SCAN, _MAX_SCANS = b"\xff\xda", 100  # encoders write up to about 15
_ANNOTATION_MODES = ("1", "L", "P", "I", "I;16", "I;16B")

Image.MAX_IMAGE_PIXELS = None  # the bound is `max_pixels` below: one bound, one error


class DecodeError(ValueError):
    """The bytes are no image that can be used; the text says why, without naming the file."""


class TooManyPixels(DecodeError):
    """The image's header announces more pixels than are allowed; nothing was decoded."""


def decode_image(data: bytes, max_pixels: int = 2**28) -> np.ndarray:
    """Decode JPEG or PNG of any mode to uint8 RGB, shape (H, W, 3).

    Grey, palette and CMYK become RGB, alpha is dropped, 16-bit samples keep their high byte. The EXIF
    orientation is ignored: an annotation's pixels are in file order. Raises DecodeError or TooManyPixels.
    """
    image = _load(data, max_pixels)
    if image.mode.startswith("I"):
        grey = (np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def decode_annotation(data: bytes, max_pixels: int = 2**28) -> tuple[np.ndarray, np.ndarray | None]:
    """Decode a single-channel PNG to its pixel values (palette indices, not colours), shape (H, W), and its palette.

    The values are uint8, or int32 for the 16- and 32-bit modes; the palette is uint8 RGB (n, 3), None for other modes
    than P. Raises DecodeError or TooManyPixels.
    """
    image = _load(data, max_pixels)
    if image.format != "PNG":
        raise DecodeError(f"an annotation must be a PNG, this is {image.format}")
    if image.mode not in _ANNOTATION_MODES:
        raise DecodeError(
            f"an annotation must have one channel with a class id per pixel, this one's mode is {image.mode}: "
            "convert colours to class ids"
        )
    palette = np.array(image.getpalette("RGB"), np.uint8).reshape(-1, 3) if image.mode == "P" else None
    pixels = np.asarray(image)
    return pixels.astype(np.int32 if image.mode.startswith("I") else np.uint8, copy=False), palette


def image_size(data: bytes, max_pixels: int = 2**28) -> tuple[int, int]:
    """Return height and width as the header announces them; raises DecodeError or TooManyPixels."""
    image = _open(data, max_pixels)
    return image.height, image.width


def _open(data: bytes, max_pixels: int) -> Image.Image:
    """Read the header alone."""
    try:
        image = Image.open(io.BytesIO(data), formats=_FORMATS)
    except Exception as error:  # Pillow's parsers let any exception out of malformed bytes
        raise DecodeError("these bytes are neither a JPEG nor a PNG image") from error
    if image.width * image.height > max_pixels:
        raise TooManyPixels(f"the image has {image.width}×{image.height} pixels, more than {max_pixels}")
    if image.format == "JPEG" and data.count(_JPEG_SCAN) > _MAX_SCANS:
        raise DecodeError(f"the JPEG has more than {_MAX_SCANS} scans, each of which costs the time of a whole image")
    return image


def _load(data: bytes, max_pixels: int) -> Image.Image:
    image = _open(data, max_pixels)
    ImageFile.LOAD_TRUNCATED_IMAGES = False  # importing GluonCV turns it on: half an image would pass for a whole one
    try:
        image.load()
    except Exception as error:  # as above
        raise DecodeError(f"the {image.format} image is damaged: {error}") from error
    return image
