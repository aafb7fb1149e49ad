"""Detection of images that occur in two channels."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np

from container.arrays import Array
from container.codecs.images import DecodeError, decode_image

Kind = Literal[b"J", b"R"]  # of an eighth of a JPEG's gray, of a whole RGB image
Digests = Mapping[bytes, list[str]]  # names (paths) of images by digest

_STEP = 8  # every so many rows and columns enter the second half of a digest


def digest_pixels(kind: Kind, size: tuple[int, int], pixels: Array) -> bytes:
    """Return bytes that are equal for equal uint8 pixels of an image of that size (height, width).

    For others they are hardly ever equal (64 bits), but that an eighth of a JPEG leaves out much of it.
    """
    sparse = np.ascontiguousarray(pixels[::_STEP, ::_STEP])
    checks = zlib.crc32(np.ascontiguousarray(pixels).data), zlib.adler32(sparse.data)
    return kind + b"".join(number.to_bytes(4, "little") for number in (*size, *checks))


def find_duplicates(ours: Digests, theirs: Digests, stop: threading.Event) -> list[tuple[str, str]]:
    """Pair the images of two channels that have the same pixels, each with the first of the others by name.

    Only what may be equal is decoded whole, and once. Ends early once `stop` is set.
    """
    mine, others = _exact(ours, theirs, stop), _exact(theirs, ours, stop)
    return sorted((name, others[digest][0]) for digest in mine.keys() & others.keys() for name in mine[digest])


def _exact(digests: Digests, against: Digests, stop: threading.Event) -> dict[bytes, list[str]]:
    """Return names by digests of the whole images, of those that may be in the other channel."""
    sizes = {digest[1:9] for digest in against if digest[:1] == b"R"}
    found: dict[bytes, list[str]] = {}
    for digest, names in digests.items():
        if digest[:1] == b"R":
            found[digest] = sorted([*found.get(digest, []), *names])
        elif digest in against or digest[1:9] in sizes:
            for name in names:
                if not stop.is_set() and (exact := _read_digest(name)):
                    found[exact] = sorted([*found.get(exact, []), name])
    return found


def _read_digest(name: str) -> bytes | None:
    try:
        image = decode_image(Path(name).read_bytes())
    except (OSError, DecodeError):  # gone since, or a JPEG of which an eighth could be decoded
        return None
    height, width = image.shape[:2]
    return digest_pixels(b"R", (height, width), image)
