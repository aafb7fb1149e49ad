"""The same image, pixel for pixel, in two channels: told by digests, and by the pixels where digests could err."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np

from container.codecs.images import DecodeError, decode_image

Kind = Literal[b"J", b"R"]  # of an eighth of a JPEG's grey, of a whole RGB image

_STEP = 8  # every so many rows and columns enter the second half of a digest


def digest_pixels(kind: Kind, size: tuple[int, int], pixels: np.ndarray) -> bytes:
    """Return bytes that are equal for equal uint8 pixels of an image of that size (height, width).

    For others they are hardly ever equal (64 bits), but that an eighth of a JPEG leaves out much of it.
    """
    sparse = np.ascontiguousarray(pixels[::_STEP, ::_STEP])
    checks = zlib.crc32(np.ascontiguousarray(pixels).data), zlib.adler32(sparse.data)
    return kind + b"".join(number.to_bytes(4, "little") for number in (*size, *checks))


def find_repeats(ours: Mapping[bytes, list[str]], theirs: Mapping[bytes, list[str]]) -> list[tuple[str, str]]:
    """Pair the images of two channels that have the same pixels, given their names (paths) by digest."""
    found = []
    for digest in ours.keys() & theirs.keys():
        for name in ours[digest]:
            same = (other for other in theirs[digest] if digest[:1] != b"J" or _same_pixels(name, other))
            if (other := next(same, None)) is not None:
                found.append((name, other))
    found += _across_formats(ours, theirs)
    found += [(name, other) for other, name in _across_formats(theirs, ours)]
    return sorted(found)


def _across_formats(jpegs: Mapping[bytes, list[str]], whole: Mapping[bytes, list[str]]) -> list[tuple[str, str]]:
    """Pair JPEGs with images of the same size and pixels in another format, which takes decoding them whole."""
    sizes = {digest[1:9] for digest in whole if digest[:1] == b"R"}
    found = []
    for digest, names in jpegs.items():
        if digest[:1] == b"J" and digest[1:9] in sizes:
            for name in names:
                if (pixels := _pixels(name)) is not None:
                    others = whole.get(digest_pixels(b"R", pixels.shape[:2], pixels))  # type: ignore[arg-type]
                    found += [(name, others[0])] if others else []
    return found


def _same_pixels(name: str, other: str) -> bool:
    data, others = Path(name).read_bytes(), Path(other).read_bytes()
    if data == others:
        return True
    pixels, theirs = _pixels(name), _pixels(other)
    return pixels is not None and theirs is not None and np.array_equal(pixels, theirs)


def _pixels(name: str) -> np.ndarray | None:
    try:
        return decode_image(Path(name).read_bytes())
    except DecodeError:  # a JPEG whose eighth could be decoded
        return None
