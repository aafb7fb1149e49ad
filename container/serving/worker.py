"""The gunicorn worker: stock gevent with limits for slow requests, and a shutdown on SIGTERM that serves what arrived.

The stock worker also patches modules that native threads need, closes incomplete requests without a response, returns
HTML for malformed requests, does not yield to other greenlets while a fast client sends, and waits for idle connections
when it stops.
"""

from __future__ import annotations

import contextlib
import json
import socket
from typing import Any

import gevent  # type: ignore[import-untyped]
from gevent import monkey
from gevent.lock import Semaphore  # type: ignore[import-untyped]
from gevent.socket import socket as gevent_socket  # type: ignore[import-untyped]
from gunicorn.http import errors  # type: ignore[import-untyped]
from gunicorn.workers.ggevent import GeventWorker  # type: ignore[import-untyped]

from container.serving.requests.log import clean

_STATUSES = (
    (errors.LimitRequestLine, 414, "URI Too Long"),
    (errors.LimitRequestHeaders, 431, "Request Header Fields Too Large"),
    (errors.ExpectationFailed, 417, "Expectation Failed"),
    (errors.UnsupportedTransferCoding, 501, "Not Implemented"),
    (errors.ParseException, 400, "Bad Request"),
)

_yielding = Semaphore()

_LINES_SIZE = 8192  # bytes that gunicorn reads to find lines, of headers or between chunks; for bodies it reads more
_LINES_READ = 2048  # bytes of lines that are parsed before other greenlets run: they can be 340 chunks of one byte
_BODY_READ = 2**16  # gunicorn discards a body by copying this buffer for every 1024 bytes

_LINGER_SECONDS = 1
_ACCEPT_SECONDS = 1  # after SIGTERM, for connections that the kernel has already accepted
_IDLE_SECONDS = 4  # after SIGTERM, for connections that have sent no request yet
_DRAIN_SECONDS = 20  # after SIGTERM, for requests in the queue; gunicorn waits for 25


class _HeadersTimeout(Exception):
    """The headers of a request did not arrive before the timeout."""


class Worker(GeventWorker):
    """gunicorn worker with one greenlet per connection; inference runs on native threads (see executor)."""

    sockets: list[Any]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._idle: set[_Connection] = set()  # connections that wait for a request

    def patch(self) -> None:
        """Patch sockets and locks, but not `subprocess` and `select`, which native threads use."""
        monkey.patch_socket(dns=False)
        monkey.patch_thread(logging=False)
        self.sockets = [gevent_socket(s.FAMILY, socket.SOCK_STREAM, fileno=s.sock.detach()) for s in self.sockets]

    def notify(self) -> None:
        """Send the heartbeat to gunicorn, and update the metrics that other workers read."""
        super().notify()
        self.wsgi.extensions["metrics"].update_gauges()

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        """Process the requests of one connection, until it is idle for too long."""
        connection = _Connection(client)
        self._idle.add(connection)
        try:
            super().handle(listener, connection, addr)
        finally:
            self._idle.discard(connection)

    def timeout_ctx(self) -> Any:
        """Limit the time for the headers of a request."""
        return gevent.Timeout(self.cfg.keepalive, _HeadersTimeout(f"no headers within {self.cfg.keepalive} s"))

    def handle_request(self, listener_name: Any, req: Any, sock: Any, addr: Any) -> None:
        """Process one request."""
        self._idle.discard(sock)
        if not sock.has_data:  # it arrived together with the previous request
            _yield_to_others()
        try:
            super().handle_request(listener_name, req, sock, addr)
        except TimeoutError as error:  # gunicorn would log a traceback
            self.log.debug("a client read too slowly: %s", error)
            raise StopIteration from None
        sock.setblocking(True)  # the application sets timeouts per request
        sock.has_data = False
        self._idle.add(sock)

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        """Return one line of JSON for a malformed request or an internal error."""
        if isinstance(exc, _HeadersTimeout):
            if client.has_data:
                _send_error(client, 408, "Request Timeout", str(exc))
            return
        for kind, status, reason in _STATUSES:
            if isinstance(exc, kind):
                self.log.warning("%s sent a malformed request: %s", addr[0], clean(str(exc)))
                _send_error(client, status, reason, clean(str(exc)))
                return
        self.log.error("a request failed", exc_info=exc)
        _send_error(client, 500, "Internal Server Error", "internal error; the endpoint's log has the details")

    def handle_exit(self, sig: Any, frame: Any) -> None:
        """On SIGTERM, process the requests of open connections, then exit."""
        if self.booted:
            self.wsgi.extensions["queue"].close_in(_DRAIN_SECONDS)
            gevent.spawn_later(_ACCEPT_SECONDS, super().handle_exit, sig, frame)
            gevent.spawn_later(_IDLE_SECONDS, self._close_idle)
        else:
            super().handle_exit(sig, frame)

    def _close_idle(self) -> None:
        for connection in self._idle:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RD)


class _Connection:
    """A connection that yields to other greenlets; `has_data` is set after a part of a request has arrived."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._is_shut = False
        self.has_data = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def recv(self, size: int) -> bytes:
        """Read at most `size` bytes."""
        if self.has_data:  # recv of gevent does not yield if data is available
            _yield_to_others()
        if self._is_shut:
            return b""
        data: bytes = self._client.recv(min(size, _BODY_READ if size > _LINES_SIZE else _LINES_READ))
        self.has_data = self.has_data or bool(data)
        return data

    def shutdown(self, how: int) -> None:
        """End reading, also of data that is available, or writing; on Linux, SHUT_RD alone ends only a wait."""
        self._is_shut = self._is_shut or how != socket.SHUT_WR
        self._client.shutdown(how)

    def close(self) -> None:
        """Read what the client still sends for up to 1 s, then close; else its kernel can discard the response."""
        with contextlib.suppress(OSError), gevent.Timeout(_LINGER_SECONDS, False):
            self._client.shutdown(socket.SHUT_WR)
            while self._client.recv(2**16):
                _yield_to_others()
        self._client.close()


def _yield_to_others() -> None:
    """Let other greenlets run. Only one caller continues per iteration of the event loop."""
    with _yielding:
        gevent.sleep(0)
    gevent.sleep(0)  # else this greenlet would take the lock again before those that wait for it


def _send_error(client: Any, status: int, reason: str, message: str) -> None:
    content = json.dumps({"error": message}) + "\n"
    head = f"HTTP/1.1 {status} {reason}\r\nConnection: close\r\nContent-Type: application/json\r\n"
    with contextlib.suppress(OSError), gevent.Timeout(_LINGER_SECONDS, False):
        client.sendall(f"{head}Content-Length: {len(content)}\r\n\r\n{content}".encode())
