"""JPEG and PNG bytes to image and annotation arrays.

Only the header, the palette, and the data of the image are decoded. Other content of the file (profiles, texts, EXIF,
thumbnails, a video after the image) is never decoded, even if it is large or corrupt.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
from PIL import Image

from container.arrays import Array, Uint8Array
from container.codecs import images_16_bit, jpeg, png, strict_decoding
from container.codecs.file_types import describe
from container.codecs.header import (
    DecodeError,
    Header,
    NotAnImageError,
    Orientation,
    TooManyPixelsError,
    TruncatedImageError,
    truncated_error,
)
from container.image_range import Range

__all__ = [
    "Annotation",
    "DecodeError",
    "Header",
    "NotAnImageError",
    "Orientation",
    "TooManyPixelsError",
    "TruncatedImageError",
    "decode_16_bit",
    "decode_annotation",
    "decode_image",
    "decode_reduced",
    "describe",
    "read_header",
]

Warn = Callable[[str], object]

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png")  # in lower case; each file is read by its content

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclasses.dataclass(frozen=True)
class Annotation:
    """Values of an annotation as stored in its file: either numbers or colors.

    `pixels` are uint8 or int32 (H, W): class IDs or palette indices. Mode P also has the uint8 RGB `palette` (n, 3).
    Other modes have the number of gray `levels`. `colors` are uint8 RGB (H, W, 3). `alpha` is uint8 (H, W), or None if
    all pixels are opaque.
    """

    pixels: Array | None
    palette: Uint8Array | None = None
    colors: Uint8Array | None = None
    levels: int = 256
    alpha: Uint8Array | None = None

    @property
    def bits(self) -> int:
        """Bit depth of `pixels`: 1, 2, 4, 8, or 16."""
        assert self.pixels is not None
        return self.levels.bit_length() - 1 if self.pixels.dtype == np.uint8 else 16

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        array = self.colors if self.pixels is None else self.pixels
        assert array is not None  # either pixels or colors are set
        return array.shape[0], array.shape[1]


def decode_image(
    data: bytes,
    max_pixels: int = 2**28,
    *,
    orientation: Orientation = "ignore",
    warn: Warn | None = None,
    header: Header | None = None,
    image_range: Range | None = None,
) -> Array:
    """Decode JPEG or PNG of any mode to uint8 RGB, shape (H, W, 3).

    Gray, palette, and CMYK images are converted to RGB. Alpha is dropped. Of 16-bit samples, the high byte is used,
    unless `image_range` specifies which samples become 0 and 255. With `orientation="ignore"`, the pixels are in file
    order, as in annotations. `warn` is called if an image is complete but has no end marker. `header` is the result of
    an earlier `read_header`. Raises DecodeError or TooManyPixelsError.
    """
    header = header or read_header(data, max_pixels)
    if image_range and header.bits == 16:
        image = Image.fromarray(images_16_bit.to_rgb(decode_16_bit(data, header, warn=warn), image_range))
    else:
        image = _load(data, header, warn)
    if orientation == "apply" and header.orientation in _TURNS:
        image = image.transpose(_TURNS[header.orientation])
    if image.mode.startswith("I"):
        gray = (np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
        return np.repeat(gray[:, :, None], 3, axis=2)
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def decode_16_bit(data: bytes, header: Header, *, warn: Warn | None = None) -> Array:
    """Decode a 16-bit PNG in the order of the file: uint16 gray (H, W) or RGB (H, W, 3); raises DecodeError."""
    image = _load(data, header, warn)
    if image.mode.startswith("I"):
        return np.asarray(image).astype(np.uint16)
    del image  # Pillow decodes only the high bytes, but it detects all errors
    return images_16_bit.decode_samples(data)


def decode_reduced(data: bytes, header: Header, *, warn: Warn | None = None) -> Array:
    """Decode a JPEG to gray at an eighth of its size, uint8 (h, w), or to (h, w, 4) if it is CMYK.

    All data is read, so a truncated image is detected as in a full decode, in half the time.
    """
    return np.asarray(_load(data, header, warn, is_reduced=True))


def decode_annotation(data: bytes, max_pixels: int = 2**28, *, warn: Warn | None = None) -> Annotation:
    """Decode a PNG to class IDs, palette indices, or colors, in file order; `warn` as in decode_image.

    Grayscale and bilevel images of any depth return the stored values (with 1, 2, and 4 bits: not scaled to 255). For
    colors, alpha is dropped, and the high byte of 16 bits is used. Raises DecodeError or TooManyPixelsError.
    """
    header = read_header(data, max_pixels)
    if header.format != "PNG":
        raise DecodeError(f"the annotation is a {header.format}. Annotations must be PNG files")
    image = _load(data, header, warn)
    if image.mode in ("RGB", "RGBA", "LA"):
        alpha = None if image.mode == "RGB" else np.asarray(image.getchannel("A"))
        is_opaque = alpha is None or bool((alpha == 255).all())
        return Annotation(None, colors=np.asarray(image.convert("RGB")), alpha=None if is_opaque else alpha)
    pixels = np.asarray(image)
    if image.mode == "L" and header.bits < 8:
        pixels = pixels // (255 // (2**header.bits - 1))  # Pillow scales to 255
    palette = np.array(image.getpalette("RGB"), np.uint8).reshape(-1, 3) if image.mode == "P" else None
    dtype = np.int32 if image.mode.startswith("I") else np.uint8
    return Annotation(pixels.astype(dtype, copy=False), palette, levels=2 ** min(header.bits, 8))


def read_header(data: bytes, max_pixels: int | None = None) -> Header:
    """Read the header of an image without decoding it; the start of a file is sufficient.

    Raises TruncatedImageError if `data` does not contain the header, NotAnImageError, TooManyPixelsError, and
    DecodeError for a corrupt header.
    """
    if data[:3] == jpeg.SIGNATURE:
        header = jpeg.read_header(data)
    elif data[:8] == png.SIGNATURE:
        header = png.read_header(data)
    else:
        raise NotAnImageError(f"this is neither a JPEG nor a PNG image, but {describe(data)}")
    if max_pixels is not None and header.width * header.height > max_pixels:
        raise TooManyPixelsError(f"the image has {header.width}×{header.height} pixels, more than {max_pixels}")
    return header


def _load(data: bytes, header: Header, warn: Warn | None, is_reduced: bool = False) -> Image.Image:
    buffers, complete = (jpeg if header.format == "JPEG" else png).pixel_data(data)
    is_open = header.format == "JPEG" and not complete
    image = (
        _load_open_jpeg(buffers, header, is_reduced) if is_open else strict_decoding.decode(buffers, header, is_reduced)
    )
    is_uncertain = header.format == "PNG" and (png.is_interlaced(data) or strict_decoding.may_lack_rows(image))
    if is_uncertain and not png.has_all_rows(data):
        raise truncated_error("PNG", "inside the image data")
    if not complete and warn:
        warn(f"the {header.format} image has no end marker. All its pixels exist, and it is used")
    return image


def _load_open_jpeg(buffers: list[memoryview], header: Header, is_reduced: bool) -> Image.Image:
    """Decode a JPEG without an end marker. If its data is complete, no pixel depends on the bytes after it."""
    image = strict_decoding.decode([*buffers, memoryview(jpeg.END)], header)
    for filler in jpeg.FILLERS:
        other = strict_decoding.decode([*buffers, memoryview(filler + jpeg.END)], header)
        if not np.array_equal(np.asarray(image), np.asarray(other)):
            raise truncated_error("JPEG", "inside the image data")
    return strict_decoding.decode([*buffers, memoryview(jpeg.END)], header, is_reduced) if is_reduced else image
