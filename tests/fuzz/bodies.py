"""Random and mutated request bodies, the same for the same seed."""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Iterator

from PIL import Image


def bodies(count: int, seed: int = 0) -> Iterator[bytes]:
    """Give `count` bodies: noise, damaged images, lying headers, bombs, files of many frames."""
    rng = random.Random(seed)
    valid = _images()
    kinds = (_noise, _flip, _truncate, _splice, _lie, _bomb, _repeat_chunk, _many_scans)
    for _ in range(count):
        yield rng.choice(kinds)(rng, rng.choice(valid))


def _images() -> list[bytes]:
    """Small images of every kind that is accepted, and a few that are not."""
    pixels = Image.effect_noise((24, 16), 60)
    images = []
    for mode, file_format, options in (
        ("RGB", "JPEG", {}),
        ("RGB", "JPEG", {"progressive": True}),
        ("CMYK", "JPEG", {}),
        ("L", "PNG", {}),
        ("RGBA", "PNG", {}),
        ("P", "PNG", {"transparency": 3}),
        ("1", "PNG", {}),
        ("I;16", "PNG", {}),
        ("RGB", "GIF", {}),
        ("RGB", "TIFF", {}),
        ("RGB", "PNG", {"save_all": True, "append_images": [pixels.convert("RGB")] * 3}),
    ):
        target = io.BytesIO()
        (pixels.convert("I") if mode == "I;16" else pixels).convert(mode).save(target, file_format, **options)
        images.append(target.getvalue())
    return images


def _noise(rng: random.Random, image: bytes) -> bytes:
    return image[: rng.choice((0, 2, 8))] + rng.randbytes(rng.randrange(400))


def _flip(rng: random.Random, image: bytes) -> bytes:
    damaged = bytearray(image)
    for _ in range(rng.randrange(1, 20)):
        damaged[rng.randrange(len(damaged))] = rng.randrange(256)
    return bytes(damaged)


def _truncate(rng: random.Random, image: bytes) -> bytes:
    return image[: rng.randrange(len(image))]


def _splice(rng: random.Random, image: bytes) -> bytes:
    place = rng.randrange(len(image))
    return image[:place] + image[rng.randrange(len(image)) :] + rng.randbytes(rng.randrange(20))


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(width: int, height: int, data: bytes, depth: int = 8, color: int = 2) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def _lie(rng: random.Random, image: bytes) -> bytes:
    """A header that is valid, of an image that is not there."""
    sides = [rng.choice((0, 1, 7, 100, 3000, 2**16, 2**31 - 1, 2**32 - 1)) for _ in range(2)]
    depth, color = rng.choice((1, 2, 4, 8, 16, 5)), rng.choice((0, 2, 3, 4, 6, 1))
    return _png(*sides, zlib.compress(rng.randbytes(50)), depth, color)


def _bomb(rng: random.Random, image: bytes) -> bytes:
    """Few bytes that unpack to many: more rows than announced, or text without end."""
    zeros = zlib.compress(bytes(4_000_000), 9)
    if rng.random() < 0.5:
        return _png(8, 8, zeros)
    text = _chunk(b"zTXt", b"key\0\0" + zeros) * rng.randrange(1, 40)
    return _png(1, 1, zlib.compress(bytes(4))).replace(b"\0\0\0\4IDAT", text + b"\0\0\0\4IDAT")


def _repeat_chunk(rng: random.Random, image: bytes) -> bytes:
    start = rng.randrange(len(image))
    return image[:start] + image[start : start + rng.randrange(1, 60)] * rng.randrange(2, 300) + image[start:]


def _many_scans(rng: random.Random, image: bytes) -> bytes:
    """A progressive JPEG whose scans are said again and again."""
    scan = image.find(b"\xff\xda")
    if scan < 0:
        return _flip(rng, image)
    return image[:scan] + image[scan:-2] * rng.randrange(2, 200) + image[-2:]
