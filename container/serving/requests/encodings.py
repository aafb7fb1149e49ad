"""Compressed request bodies (gzip)."""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable

from werkzeug.wrappers import Request

from container.errors import RequestError

_PIECE = 2**16
_UNPACKED = 2**20  # bytes that are unpacked at a time, before they are counted
_MEMBERS_LIMIT = 1000  # streams that follow one another in a body: an empty one has 20 bytes


def is_compressed(request: Request) -> bool:
    """Say whether the body has to be unpacked; raises RequestError 415 for what is not gzip."""
    encoding = request.headers.get("Content-Encoding", "").strip().lower()
    if encoding not in ("", "identity", "gzip", "x-gzip"):
        raise RequestError(
            415, f"Content-Encoding {encoding[:100]} is not supported; send gzip, or the bytes as they are"
        )
    return "gzip" in encoding


def unpack_gzip(body: bytes, limit: int, grow: Callable[[int], object] = lambda size: None) -> bytes:
    """Return what `body` holds; `grow` is told of each piece's bytes as it is unpacked.

    Raises RequestError: 413 when it holds more than `limit` bytes, of which no more are ever unpacked; 400 when it is
    no gzip, damaged or cut off.
    """
    unpacked, size, members = io.BytesIO(), 0, 1
    stream = zlib.decompressobj(wbits=31)
    for start in range(0, len(body), _PIECE):
        packed, has_more = body[start : start + _PIECE], False
        while packed or has_more:
            if stream.eof:
                stream, members = zlib.decompressobj(wbits=31), members + 1
            room = min(_UNPACKED, limit + 1 - size)
            try:
                piece = stream.decompress(packed, room)
            except zlib.error as error:
                raise RequestError(400, f"the body is not gzip, as its Content-Encoding says: {error}") from error
            size += len(piece)
            if size > limit or members > _MEMBERS_LIMIT:
                much = f"more than {limit} bytes" if size > limit else f"more than {_MEMBERS_LIMIT} streams"
                raise RequestError(413, f"the body unpacks to {much}; scale the image, or raise MAX_CONTENT_LENGTH")
            grow(len(piece))
            unpacked.write(piece)
            packed = stream.unused_data if stream.eof else stream.unconsumed_tail
            has_more = len(piece) == room and not stream.eof  # zlib may hold some back when all has gone in
    if not stream.eof:
        raise RequestError(400, f"the body's gzip is cut off after {len(body)} bytes")
    return unpacked.getvalue()
