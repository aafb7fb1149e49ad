"""Response media types and their encoders."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol

from container.arrays import Array
from container.artifact.classes import ClassEntry
from container.codecs.masks import JsonEncoder, PngEncoder
from container.codecs.probabilities import Buffer, Compression, NpyEncoder, RecordIOEncoder

_CHUNK_BYTES = 2**20


class Encoder(Protocol):
    """Encoder of one response format: a media type with the parameters from the client."""

    needs: str  # "mask" or "probabilities"
    compression: Compression

    def __init__(self, options: Mapping[str, str], classes: Mapping[int, ClassEntry]) -> None:
        """Raise ValueError that names an invalid or unsupported parameter."""
        ...

    def size(self, num_classes: int, height: int, width: int) -> int:
        """Return the approximate response size in bytes; 0 if it depends on the content."""
        ...

    def memory(self, num_classes: int, height: int, width: int) -> int:
        """Return the largest number of bytes that `encode` needs in addition to its argument."""
        ...

    def encode(self, answer: Array) -> list[Buffer]:
        """Return the buffers of the response, in order."""
        ...


def compress(buffers: Iterable[Buffer]) -> list[Buffer]:
    """Compress buffers with gzip at the fastest level."""
    compressor = zlib.compressobj(1, wbits=31)
    packed = [compressor.compress(chunk) for chunk in pieces(buffers)]  # zlib copies each buffer that it compresses
    return [*filter(None, packed), compressor.flush()]


def pieces(buffers: Iterable[Buffer]) -> Iterator[bytes]:
    """Yield small bytes objects, which WSGI requires, without a second copy of the complete content in memory."""
    for buffer in buffers:
        for start in range(0, len(buffer), _CHUNK_BYTES):
            yield bytes(buffer[start : start + _CHUNK_BYTES])


ENCODERS: dict[str, type[Encoder]] = {
    "image/png": PngEncoder,
    "application/x-protobuf": RecordIOEncoder,
    "application/x-recordio-protobuf": RecordIOEncoder,
    "application/x-npy": NpyEncoder,
    "application/json": JsonEncoder,
}
