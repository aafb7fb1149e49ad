"""Clients that cost a server more than they give it: silent, half way, dripping, as many as long as it lasts."""

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

_DRIP_SECONDS = 0.25
_NEW_AT_ONCE = 50


@dataclasses.dataclass(frozen=True)
class Peers:
    """So many that send `first`, and then `drip` four times a second."""

    count: int
    first: bytes = b""
    drip: bytes = b""


_IDLE = Peers(1000)
_HALF_SENT = Peers(1000, HEAD + b"Content-Length: 99999\r\n\r\nhalf")
_HALF_LINES = Peers(1000, HEAD[:12])
_DRIPPING = Peers(100, HEAD + b"X-Slow: ", b"z")
_REFUSED = Peers(42, HEAD.replace(b"jpeg", b"tiff") + b"Content-Length: 9999\r\n\r\n", b"z")
# these are not slow: what they send takes a server long to read
_FRAGMENTED = Peers(3, HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n" * 20_000)
_PIPELINED = Peers(3, b"", b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n" * 300)
_LONG_ACCEPT = Peers(3, b"", HEAD + b"Accept: image/png;tta" + b" " * 8000 + b"x\r\nContent-Length: 4\r\n\r\nbody")
_FILLED = Peers(2, b"", HEAD + b"Content-Length: 10000003\r\n\r\n\xff\xd8\xff" + b"\xff" * 10**7)

KINDS: dict[str, tuple[Peers, ...]] = {
    "1000 idle": (_IDLE,),
    "1000 half-sent requests": (_HALF_SENT,),
    "1000 half-sent request lines": (_HALF_LINES,),
    "100 dripping headers": (_DRIPPING,),
    "42 dripping bodies of a refused type": (_REFUSED,),
    "3 bodies in chunks of one byte": (_FRAGMENTED,),
    "3 connections of pipelined /ping": (_PIPELINED,),
    "3 connections of long Accept headers": (_LONG_ACCEPT,),
    "2 JPEGs of 10 MB of fill bytes": (_FILLED,),
    "all slow ones at once": (_IDLE, _HALF_SENT, _DRIPPING, _REFUSED),
}


def keep_open(port: int, kinds: Sequence[Peers], told: Connection) -> None:
    """Keep such connections open until something is sent to `told`: one that the server closes is opened again.

    At the end it tells the seconds of a core that this took.
    """
    selector = selectors.DefaultSelector()
    crowds = [_Crowd(port, peers, selector) for peers in kinds]
    while not told.poll():
        for crowd in crowds:
            crowd.fill()
            crowd.drip()
        for key, _ in selector.select(0.05):
            key.data.hear(key.fileobj)
    told.send(time.process_time())


class _Crowd:
    def __init__(self, port: int, peers: Peers, selector: selectors.BaseSelector) -> None:
        self._port = port
        self._peers = peers
        self._selector = selector
        self._open: set[socket.socket] = set()
        self._next_drip = 0.0

    def fill(self) -> None:
        for _ in range(min(_NEW_AT_ONCE, self._peers.count - len(self._open))):
            with contextlib.suppress(OSError):
                peer = socket.create_connection(("127.0.0.1", self._port), timeout=5)
                self._open.add(peer)
                self._selector.register(peer, selectors.EVENT_READ, self)
                peer.sendall(self._peers.first)

    def drip(self) -> None:
        if not self._peers.drip or time.monotonic() < self._next_drip:
            return
        self._next_drip = time.monotonic() + _DRIP_SECONDS
        for peer in list(self._open):
            try:
                peer.sendall(self._peers.drip)
            except OSError:
                self._drop(peer)

    def hear(self, peer: Any) -> None:
        with contextlib.suppress(OSError):
            if peer.recv(2**16):
                return
        self._drop(peer)

    def _drop(self, peer: socket.socket) -> None:
        self._selector.unregister(peer)
        self._open.discard(peer)
        peer.close()
