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

Kind = Literal[b"J", b"R"]  # digest of a JPEG in gray at an eighth of its size, or of a full RGB image
Digests = Mapping[bytes, list[str]]  # paths of images by digest

_STEP = 8  # interval of the rows and columns in the second checksum


def digest_pixels(kind: Kind, size: tuple[int, int], pixels: Array) -> bytes:
    """Return a digest of uint8 pixels, and of the size (height, width) of their image.

    Different pixels have different digests, except for one of 2**64. The digest of a reduced JPEG does not contain all
    of its details.
    """
    sparse = np.ascontiguousarray(pixels[::_STEP, ::_STEP])
    checks = zlib.crc32(np.ascontiguousarray(pixels).data), zlib.adler32(sparse.data)
    return kind + b"".join(number.to_bytes(4, "little") for number in (*size, *checks))


def find_duplicates(first: Digests, second: Digests, stop: threading.Event) -> list[tuple[str, str]]:
    """Return the images with the same pixels in two channels: each with the first one, by name, of the other channel.

    Only images that can be equal are decoded completely, once. Stops early if `stop` is set.
    """
    names, others = _full_digests(first, second, stop), _full_digests(second, first, stop)
    return sorted((name, others[digest][0]) for digest in names.keys() & others.keys() for name in names[digest])


def _full_digests(digests: Digests, against: Digests, stop: threading.Event) -> dict[bytes, list[str]]:
    """Return the names by digest of the full image, for images that can be in the other channel."""
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
    except (OSError, DecodeError):  # a deleted file, or a JPEG that can be decoded only at an eighth of its size
        return None
    height, width = image.shape[:2]
    return digest_pixels(b"R", (height, width), image)
