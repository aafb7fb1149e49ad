"""Random and mutated request bodies, the same for the same seed."""

from __future__ import annotations

import io
import random
import zlib
from collections.abc import Iterator

from PIL import Image

from tests.pictures import IEND, MP4, chunk, exif, png, segment, with_segments


def bodies(count: int, seed: int = 0) -> Iterator[bytes]:
    """Give `count` bodies: noise, damaged images, lying headers, bombs, files of many frames."""
    rng = random.Random(seed)
    valid = _images()
    kinds = (
        _noise,
        _flip,
        _truncate,
        _splice,
        _lie,
        _bomb,
        _repeat_chunk,
        _many_scans,
        _surround,
        _trail,
        _open,
        _fill,
    )
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


def _lie(rng: random.Random, image: bytes) -> bytes:
    """A header that is valid, of an image that is not there."""
    sides = [rng.choice((0, 1, 7, 100, 3000, 2**16, 2**31 - 1, 2**32 - 1)) for _ in range(2)]
    depth, color = rng.choice((1, 2, 4, 8, 16, 5)), rng.choice((0, 2, 3, 4, 6, 1))
    return png(*sides, depth, color, rng.randbytes(50), interlaced=rng.random() < 0.2)


def _bomb(rng: random.Random, image: bytes) -> bytes:
    """Few bytes that unpack to many: more rows than announced, or text without end."""
    if rng.random() < 0.5:
        return png(8, 8, 8, 2, bytes(4_000_000))
    zeros = zlib.compress(bytes(4_000_000), 9)
    kind, head = rng.choice(((b"zTXt", b"key\0\0"), (b"iTXt", b"key\0\1\0\0\0"), (b"iCCP", b"key\0\0")))
    return png(1, 1, 8, 2, bytes(4), chunk(kind, head + zeros) * rng.randrange(1, 40))


def _repeat_chunk(rng: random.Random, image: bytes) -> bytes:
    start = rng.randrange(len(image))
    return image[:start] + image[start : start + rng.randrange(1, 60)] * rng.randrange(2, 300) + image[start:]


def _many_scans(rng: random.Random, image: bytes) -> bytes:
    """A progressive JPEG whose scans are said again and again."""
    scan = image.find(b"\xff\xda")
    if scan < 0:
        return _flip(rng, image)
    return image[:scan] + image[scan:-2] * rng.randrange(2, 200) + image[-2:]


def _surround(rng: random.Random, image: bytes) -> bytes:
    """Large chunks and segments, right, wrong or cut: profiles, texts, EXIF data with a thumbnail."""
    data = rng.randbytes(rng.choice((0, 1, 5, 30, 20_000, 65_533)))
    if image.startswith(b"\xff\xd8"):
        tags = exif(rng.randrange(10), rng.choice("<>"), rng.choice("HI"), image * rng.randrange(300))
        more = segment(0xE1, (b"Exif\0\0" + tags)[: rng.choice((9, 30, 65_533))])
        around = [more, segment(rng.choice((0xE0, 0xE1, 0xE2, 0xED, 0xEE, 0xFE)), data)] * rng.randrange(1, 20)
        return with_segments(image, *rng.sample(around, rng.randrange(1, len(around))))
    kinds = (b"iCCP", b"tEXt", b"zTXt", b"iTXt", b"eXIf", b"tRNS", b"gAMA", b"acTL", b"fcTL", b"fdAT", b"PLTE", b"ABCD")
    around = [chunk(rng.choice(kinds), data * rng.randrange(30)) for _ in range(rng.randrange(1, 4))]
    place = rng.choice((33, len(image) - len(IEND)))
    return image[:place] + b"".join(around) + image[place:]


def _trail(rng: random.Random, image: bytes) -> bytes:
    """Whole pictures with up to megabytes behind them."""
    behind = rng.choice((MP4, image * 2000, bytes(2**21), b"\xff\xda" * 2**20, rng.randbytes(2**20)))
    return image + behind[: rng.randrange(len(behind))]


def _open(rng: random.Random, image: bytes) -> bytes:
    """Pictures that end early, or almost early, and are padded."""
    behind = rng.choice((b"\0", b"\xff", b"\xff\0", b"\xff\xd3", b"\x55"))
    return image[: len(image) - rng.randrange(40)] + behind * rng.choice((0, 1, 3000, 2**20))


def _fill(rng: random.Random, image: bytes) -> bytes:
    """Millions of bytes within the picture that mean nothing to a JPEG."""
    place = rng.randrange(len(image))
    return image[:place] + rng.choice((b"\xff", b"\0", b"\xff\xfe\0\2", b"\xff\0")) * 2**21 + image[place:]
