"""Pictures for tests, built by hand from chunks and segments, or saved by Pillow."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
IEND = b"\0\0\0\0IEND\xaeB`\x82"
EOI = b"\xff\xd9"
MP4 = b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom"


def save(image: Image.Image, file_format: str = "PNG", **options: object) -> bytes:
    """Encode with Pillow."""
    target = io.BytesIO()
    image.save(target, file_format, **options)
    return target.getvalue()


def noise(height: int = 32, width: int = 40) -> Image.Image:
    """An RGB image in which every pixel counts."""
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))


def opened(data: bytes) -> np.ndarray:
    """What Pillow alone makes of the bytes, in RGB."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def chunk(kind: bytes, data: bytes = b"") -> bytes:
    """A chunk of a PNG, with its checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(
    width: int,
    height: int,
    bits: int,
    color: int,
    rows: bytes,
    before: bytes = b"",
    after: bytes = b"",
    interlaced: bool = False,
) -> bytes:
    """A PNG of `rows`, each of which begins with its filter's number; with chunks before and after the image data."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, interlaced))
    return PNG_SIGNATURE + header + before + chunk(b"IDAT", zlib.compress(rows)) + after + IEND


def segment(marker: int, data: bytes = b"") -> bytes:
    """A segment of a JPEG."""
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def exif(orientation: int, order: str = "<", kind: str = "H", thumbnail: bytes = b"") -> bytes:
    """EXIF data as in a TIFF file, with another entry before the orientation and a thumbnail behind it."""
    number = struct.pack(order + kind, orientation).ljust(4, b"\0")
    entries = struct.pack(order + "HHHIHH", 2, 0x0100, 3, 1, 640, 0)
    entries += struct.pack(order + "HHI", 0x0112, {"B": 1, "H": 3, "I": 4}[kind], 1) + number + bytes(4)
    return (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8) + entries + thumbnail


def with_segments(jpeg: bytes, *segments: bytes) -> bytes:
    """The JPEG with segments right behind its first mark."""
    return jpeg[:2] + b"".join(segments) + jpeg[2:]
