"""Request bodies with size and time limits."""

from __future__ import annotations

import contextlib
import io
import socket
import threading
import time
from collections.abc import Callable, Iterator

from gunicorn.http.errors import ParseException  # type: ignore[import-untyped]
from werkzeug.exceptions import ClientDisconnected, RequestEntityTooLarge
from werkzeug.wrappers import Request

from container.errors import RequestError
from container.serving.requests.deadline import RequestDeadline

STALL_SECONDS = 20  # sockets give up after that much silence, see worker: what waits costs less than who comes anew
_ARRIVAL_SECONDS = 30
_PIECE = 2**16
_DISCARD_BYTES = 2**27  # more than the platform ever sends


def read_body(request: Request, limit: int, grow: Callable[[int], object], clock: RequestDeadline) -> bytes:
    """Read the whole body; `grow` is told of each piece's bytes as it comes.

    Raises RequestError: 413 beyond `limit` bytes, 408 when it is slow, 400 without one; and what `grow` raises.
    """
    seconds = max(0.1, min(_ARRIVAL_SECONDS, clock.left))
    late = RequestError(408, f"the body did not arrive within {seconds:.0f} s")
    with cut_off(request.environ.get("gunicorn.socket"), seconds) as passed:
        try:
            arrived = io.BytesIO()  # joining pieces would hold all of them twice
            for piece in _pieces(request, limit, grow):
                arrived.write(piece)
            body = arrived.getvalue()
        except (OSError, ClientDisconnected) as error:
            raise RequestError(408, "the body did not arrive in time") from error
        except ParseException as error:
            if passed.is_set():  # in the middle of a chunk
                raise late from error
            raise RequestError(400, f"the body is not chunked as its header says: {error}") from error
    if passed.is_set():
        raise late
    if len(body) < (request.content_length or 0):
        raise RequestError(400, f"the body ended after {len(body)} of {request.content_length} bytes")
    if not body:
        raise RequestError(400, "the body is empty: send the bytes of a JPEG or PNG image")
    return body


def _pieces(request: Request, limit: int, grow: Callable[[int], object]) -> Iterator[bytes]:
    length = 0
    try:
        while piece := request.stream.read(_PIECE):
            length += len(piece)
            if length > limit:
                raise RequestEntityTooLarge
            grow(len(piece))
            yield piece
    except RequestEntityTooLarge as error:
        advice = "compress or scale the image, or raise MAX_CONTENT_LENGTH"
        raise RequestError(413, f"the body is larger than {limit} bytes; {advice}") from error


def discard_body(request: Request, seconds: float) -> None:
    """Read what is left of the body for a while: to a client still sending, a refusal would be a broken connection."""
    body = request.environ["wsgi.input"]
    deadline = time.monotonic() + seconds
    left = _DISCARD_BYTES
    # who stalls or breaks off gets the answer as things are
    with contextlib.suppress(Exception), cut_off(request.environ.get("gunicorn.socket"), seconds):
        while left > 0 and time.monotonic() < deadline and (data := body.read(2**16)):
            left -= len(data)


@contextlib.contextmanager
def cut_off(connection: socket.socket | None, seconds: float) -> Iterator[threading.Event]:
    """End the reading of the block after a while, even if a byte comes now and then; gives what then is set."""
    passed = threading.Event()

    def stop() -> None:
        passed.set()
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RD)

    timer = threading.Timer(seconds, stop)
    timer.daemon = True
    timer.start()
    try:
        yield passed
    finally:
        timer.cancel()
