"""Request bodies: read and decompress them with size and time limits."""

from __future__ import annotations

import contextlib
import io
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator

from gunicorn.http.errors import ParseException  # type: ignore[import-untyped]
from werkzeug.exceptions import ClientDisconnected, RequestEntityTooLarge
from werkzeug.wrappers import Request

from container.errors import RequestError
from container.serving.requests import errors
from container.serving.requests.deadline import RequestDeadline

STALL_SECONDS = 20  # a connection is closed after it was idle for that long
_ARRIVAL_SECONDS = 30
_CHUNK = 2**16
_DISCARD_BYTES = 2**27  # more than SageMaker AI sends
_DECOMPRESSED_CHUNK = 2**20  # bytes that are decompressed before they are counted
_MAX_GZIP_STREAMS = 1000  # concatenated in one body: an empty stream has 20 bytes


def is_gzip(request: Request) -> bool:
    """Return whether the body is compressed; raises RequestError 415 for other encodings than gzip."""
    encoding = request.headers.get("Content-Encoding", "").strip().lower()
    if encoding not in ("", "identity", "gzip", "x-gzip"):
        raise RequestError(
            415, f"Content-Encoding {encoding[:100]} is not supported; send gzip, or the bytes as they are"
        )
    return "gzip" in encoding


def read_body(
    request: Request,
    limit: int,
    reserve: Callable[[int], object],
    deadline: RequestDeadline,
    fix: str | None = None,
) -> bytes:
    """Read the complete body; `reserve` is called with the size of each chunk before it is stored.

    `fix` replaces the fix in errors of bodies that are not images.
    Raises RequestError: 413 beyond `limit` bytes, 408 if it is slow, 400 if it is empty; and what `reserve` raises.
    """
    seconds = max(0.1, min(_ARRIVAL_SECONDS, deadline.remaining))
    late = RequestError(408, f"the body did not arrive within {seconds:.0f} s")
    with _limit_reading(request.environ.get("gunicorn.socket"), seconds) as expired:
        try:
            body_file = io.BytesIO()  # joining the chunks would need twice the memory
            for chunk in _read_chunks(request, limit, reserve, fix):
                body_file.write(chunk)
            body = body_file.getvalue()
        except (OSError, ClientDisconnected) as error:
            raise RequestError(408, "the body did not arrive before the timeout") from error
        except ParseException as error:
            if expired.is_set():  # within a chunk
                raise late from error
            raise RequestError(400, f"the body is not valid chunked encoding: {error}") from error
    if expired.is_set():
        raise late
    if len(body) < (request.content_length or 0):
        raise RequestError(400, f"the body ended after {len(body)} of {request.content_length} bytes")
    if not body:
        raise RequestError(400, f"The body is empty. {fix or 'Send the bytes of a JPEG or PNG image.'}")
    return body


def _read_chunks(request: Request, limit: int, reserve: Callable[[int], object], fix: str | None) -> Iterator[bytes]:
    length = 0
    try:
        while chunk := request.stream.read(_CHUNK):
            length += len(chunk)
            if length > limit:
                raise errors.body_too_large(limit, fix)
            reserve(len(chunk))
            yield chunk
    except RequestEntityTooLarge as error:
        raise errors.body_too_large(limit, fix) from error


def decompress_gzip(body: bytes, limit: int, reserve: Callable[[int], object] = lambda size: None) -> bytes:
    """Return the decompressed body; `reserve` is called with the size of each chunk before it is stored.

    Raises RequestError: 413 if it has more than `limit` bytes, of which at most one more is decompressed; 400 if the
    body is not gzip, corrupt, or truncated.
    """
    decompressed, size, streams = io.BytesIO(), 0, 1
    stream = zlib.decompressobj(wbits=31)
    for start in range(0, len(body), _CHUNK):
        compressed, has_more = body[start : start + _CHUNK], False
        while compressed or has_more:
            if stream.eof:
                stream, streams = zlib.decompressobj(wbits=31), streams + 1
            max_length = min(_DECOMPRESSED_CHUNK, limit + 1 - size)
            try:
                chunk = stream.decompress(compressed, max_length)
            except zlib.error as error:
                raise RequestError(400, f"the body is not valid gzip: {error}") from error
            size += len(chunk)
            if size > limit:
                raise errors.decompressed_body_too_large(limit)
            if streams > _MAX_GZIP_STREAMS:
                raise errors.too_many_gzip_streams(_MAX_GZIP_STREAMS)
            reserve(len(chunk))
            decompressed.write(chunk)
            compressed = stream.unused_data if stream.eof else stream.unconsumed_tail
            has_more = len(chunk) == max_length and not stream.eof  # zlib can retain output after the last input
    if not stream.eof:
        raise RequestError(400, f"the gzip body is truncated after {len(body)} bytes")
    return decompressed.getvalue()


def discard_body(request: Request, seconds: float) -> None:
    """Read the rest of the body for a while, because a client that still sends would not read the response."""
    body = request.environ["wsgi.input"]
    end = time.monotonic() + seconds
    remaining = _DISCARD_BYTES
    # if the client stalls or disconnects, the response is sent without the rest
    with contextlib.suppress(Exception), _limit_reading(request.environ.get("gunicorn.socket"), seconds):
        while remaining > 0 and time.monotonic() < end and (chunk := body.read(_CHUNK)):
            remaining -= len(chunk)


@contextlib.contextmanager
def _limit_reading(connection: socket.socket | None, seconds: float) -> Iterator[threading.Event]:
    """End all reading of the block after `seconds`, even if bytes still arrive; yields the event that is then set."""
    expired = threading.Event()

    def stop() -> None:
        expired.set()
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RD)

    timer = threading.Timer(seconds, stop)
    timer.daemon = True
    timer.start()
    try:
        yield expired
    finally:
        timer.cancel()
