"""The gunicorn worker: the stock gevent worker with limits for slow and malformed requests.

Stock, it patches what the compute threads need, closes half-sent requests without an answer, answers malformed ones in
HTML, reads a fast sender's bytes without letting others run, and waits for idle connections when it is to end.
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

_turn = Semaphore()

_LINES_SIZE = 8192  # what gunicorn asks for to find lines, of headers or between chunks; of bodies it asks for more
_LINES_AT_ONCE = 2048  # how much of that is parsed before others run: it may hold 340 chunks of one byte
_BODY_AT_ONCE = 2**16  # gunicorn discards a body from such a buffer by copying all of it for every 1024 bytes

_LINGER_SECONDS = 1
_ACCEPT_SECONDS = 1  # after SIGTERM, for connections that the kernel has accepted already
_IDLE_SECONDS = 4  # after SIGTERM, for connections that have sent no request yet
_DRAIN_SECONDS = 20  # after SIGTERM, for requests in the queue; gunicorn waits for 25


class _HeadersTimeout(Exception):
    """The headers of a request did not arrive in time."""


class Worker(GeventWorker):
    """Serves connections on greenlets; what computes runs on native threads (see greenlets)."""

    sockets: list[Any]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._idle: set[_Connection] = set()  # connections that wait for a request

    def patch(self) -> None:
        """Make sockets and locks cooperative; `subprocess` and `select` stay those that native threads can use."""
        monkey.patch_socket(dns=False)
        monkey.patch_thread(logging=False)
        self.sockets = [gevent_socket(s.FAMILY, socket.SOCK_STREAM, fileno=s.sock.detach()) for s in self.sockets]

    def notify(self) -> None:
        """Tell gunicorn that this process runs, and the other workers what it measures."""
        super().notify()
        self.wsgi.extensions["metrics"].measure()

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        """Answer the requests of one connection, until it is idle for too long."""
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
        """Answer one request."""
        self._idle.discard(sock)
        if not sock.has_begun:  # it came together with the one before
            _take_turn()
        try:
            super().handle_request(listener_name, req, sock, addr)
        except TimeoutError as error:  # gunicorn would log a traceback
            self.log.debug("a client read too slowly: %s", error)
            raise StopIteration from None
        sock.setblocking(True)  # the application has set timeouts for this request
        sock.has_begun = False
        self._idle.add(sock)

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        """Answer with one line of JSON what is no request, or what this program has failed on."""
        if isinstance(exc, _HeadersTimeout):
            if client.has_begun:
                _refuse(client, 408, "Request Timeout", str(exc))
            return
        for kind, status, reason in _STATUSES:
            if isinstance(exc, kind):
                self.log.warning("%s sent a malformed request: %s", addr[0], clean(str(exc)))
                _refuse(client, status, reason, clean(str(exc)))
                return
        self.log.error("a request failed", exc_info=exc)
        _refuse(client, 500, "Internal Server Error", "internal error; the endpoint's log has the details")

    def handle_exit(self, sig: Any, frame: Any) -> None:
        """On SIGTERM serve what has connected, then end."""
        if self.booted:
            self.wsgi.extensions["gate"].close_in(_DRAIN_SECONDS)
            gevent.spawn_later(_ACCEPT_SECONDS, super().handle_exit, sig, frame)
            gevent.spawn_later(_IDLE_SECONDS, self._close_idle)
        else:
            super().handle_exit(sig, frame)

    def _close_idle(self) -> None:
        for connection in self._idle:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RD)


class _Connection:
    """A connection whose reader lets other greenlets run; `has_begun` says whether a part of a request has come."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._is_shut = False
        self.has_begun = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def recv(self, size: int) -> bytes:
        """Read at most `size` bytes."""
        if self.has_begun:  # gevent's own recv does not yield when data are there
            _take_turn()
        if self._is_shut:
            return b""
        data: bytes = self._client.recv(min(size, _BODY_AT_ONCE if size > _LINES_SIZE else _LINES_AT_ONCE))
        self.has_begun = self.has_begun or bool(data)
        return data

    def shutdown(self, how: int) -> None:
        """End the reading even if data are there, or the writing: for Linux, SHUT_RD only ends a wait."""
        self._is_shut = self._is_shut or how != socket.SHUT_WR
        self._client.shutdown(how)

    def close(self) -> None:
        """Read for a moment what the client still sends, then close: else its kernel would discard the response."""
        with contextlib.suppress(OSError), gevent.Timeout(_LINGER_SECONDS, False):
            self._client.shutdown(socket.SHUT_WR)
            while self._client.recv(2**16):
                _take_turn()
        self._client.close()


def _take_turn() -> None:
    """Let everybody else run. Of the greenlets that call this, one runs at a time between two looks at new events."""
    with _turn:
        gevent.sleep(0)


def _refuse(client: Any, status: int, reason: str, message: str) -> None:
    content = json.dumps({"error": message}) + "\n"
    head = f"HTTP/1.1 {status} {reason}\r\nConnection: close\r\nContent-Type: application/json\r\n"
    with contextlib.suppress(OSError), gevent.Timeout(_LINGER_SECONDS, False):
        client.sendall(f"{head}Content-Length: {len(content)}\r\n\r\n{content}".encode())
