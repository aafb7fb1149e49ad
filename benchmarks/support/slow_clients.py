"""Slow and malformed clients that use more of a server than they send: idle, half-sent, and one byte at a time."""

from __future__ import annotations

import contextlib
import dataclasses
import selectors
import socket
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any

HEAD = b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\n"

_SEND_SECONDS = 0.25
_NEW_PER_ROUND = 50


@dataclasses.dataclass(frozen=True)
class SlowClients:
    """A number of clients that send `first`, and then `repeat` four times per second."""

    count: int
    first: bytes = b""
    repeat: bytes = b""


_IDLE = SlowClients(1000)
_HALF_SENT = SlowClients(1000, HEAD + b"Content-Length: 99999\r\n\r\nhalf")
_HALF_LINES = SlowClients(1000, HEAD[:12])
_SLOW_HEADERS = SlowClients(100, HEAD + b"X-Slow: ", b"z")
_REJECTED = SlowClients(42, HEAD.replace(b"jpeg", b"tiff") + b"Content-Length: 9999\r\n\r\n", b"z")
# The following clients are fast, but a server needs long to read what they send.
_CHUNKED = SlowClients(3, HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n" * 20_000)
_PIPELINED = SlowClients(3, b"", b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n" * 300)
_LONG_ACCEPT = SlowClients(
    3, b"", HEAD + b"Accept: image/png;tta" + b" " * 8000 + b"x\r\nContent-Length: 4\r\n\r\nbody"
)
_FILL_BYTES = SlowClients(2, b"", HEAD + b"Content-Length: 10000003\r\n\r\n\xff\xd8\xff" + b"\xff" * 10**7)

KINDS: dict[str, tuple[SlowClients, ...]] = {
    "1000 idle connections": (_IDLE,),
    "1000 half-sent requests": (_HALF_SENT,),
    "1000 half-sent request lines": (_HALF_LINES,),
    "100 headers byte by byte": (_SLOW_HEADERS,),
    "42 rejected bodies byte by byte": (_REJECTED,),
    "3 bodies in chunks of 1 byte": (_CHUNKED,),
    "3 connections of pipelined /ping": (_PIPELINED,),
    "3 connections of long Accept headers": (_LONG_ACCEPT,),
    "2 JPEGs with 10 MB of fill bytes": (_FILL_BYTES,),
    "all slow clients": (_IDLE, _HALF_SENT, _SLOW_HEADERS, _REJECTED),
}


def keep_open(port: int, kinds: Sequence[SlowClients], control: Connection) -> None:
    """Keep these connections open until `control` receives a message, then send the CPU seconds that this took.

    If the server closes a connection, it is opened again.
    """
    selector = selectors.DefaultSelector()
    pools = [_ConnectionPool(port, clients, selector) for clients in kinds]
    while not control.poll():
        for pool in pools:
            pool.fill()
            pool.send()
        for key, _ in selector.select(0.05):
            key.data.receive(key.fileobj)
    control.send(time.process_time())


class _ConnectionPool:
    """The open connections of one kind of client."""

    def __init__(self, port: int, clients: SlowClients, selector: selectors.BaseSelector) -> None:
        self._port = port
        self._clients = clients
        self._selector = selector
        self._open: set[socket.socket] = set()
        self._next_send = 0.0

    def fill(self) -> None:
        for _ in range(min(_NEW_PER_ROUND, self._clients.count - len(self._open))):
            with contextlib.suppress(OSError):
                connection = socket.create_connection(("127.0.0.1", self._port), timeout=5)
                self._open.add(connection)
                self._selector.register(connection, selectors.EVENT_READ, self)
                connection.sendall(self._clients.first)

    def send(self) -> None:
        if not self._clients.repeat or time.monotonic() < self._next_send:
            return
        self._next_send = time.monotonic() + _SEND_SECONDS
        for connection in list(self._open):
            try:
                connection.sendall(self._clients.repeat)
            except OSError:
                self._close(connection)

    def receive(self, connection: Any) -> None:
        with contextlib.suppress(OSError):
            if connection.recv(2**16):
                return
        self._close(connection)

    def _close(self, connection: socket.socket) -> None:
        self._selector.unregister(connection)
        self._open.discard(connection)
        connection.close()
