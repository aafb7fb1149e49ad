"""Response media types and their encoders."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol

from container.arrays import Array
from container.artifact.classes import ClassEntry
from container.codecs.masks import JsonEncoder, PngEncoder
from container.codecs.probabilities import Buffer, Compression, NpyEncoder, RecordIOEncoder

_PIECE = 2**20


class Encoder(Protocol):
    """One answer's form: a media type with the parameters that a client gave it."""

    needs: str  # "mask" or "probabilities"
    compression: Compression

    def __init__(self, options: Mapping[str, str], classes: Mapping[int, ClassEntry]) -> None:
        """Raise ValueError that names the parameter which cannot be honored."""
        ...

    def size(self, num_classes: int, height: int, width: int) -> int:
        """Return about how many bytes the answer will have, 0 when only the answer can say."""
        ...

    def memory(self, num_classes: int, height: int, width: int) -> int:
        """Return how many bytes `encode` takes at most beside what it is given, where an image of it needs more."""
        ...

    def encode(self, answer: Array) -> list[Buffer]:
        """Return the buffers that, one after the other, are the answer."""
        ...


def compress(buffers: Iterable[Buffer]) -> list[Buffer]:
    """Compress with gzip, quickly rather than tightly."""
    compressor = zlib.compressobj(1, wbits=31)
    packed = [compressor.compress(piece) for piece in pieces(buffers)]  # of a whole one zlib would hold two
    return [*filter(None, packed), compressor.flush()]


def pieces(buffers: Iterable[Buffer]) -> Iterator[bytes]:
    """Cut into bytes, which is all that WSGI takes, a little at a time: no second copy of the whole is ever held."""
    for buffer in buffers:
        for start in range(0, len(buffer), _PIECE):
            yield bytes(buffer[start : start + _PIECE])


ENCODERS: dict[str, type[Encoder]] = {
    "image/png": PngEncoder,
    "application/x-protobuf": RecordIOEncoder,
    "application/x-recordio-protobuf": RecordIOEncoder,
    "application/x-npy": NpyEncoder,
    "application/json": JsonEncoder,
}
