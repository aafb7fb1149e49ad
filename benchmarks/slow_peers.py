"""Clients that cost a server more than they give it: silent, half way, dripping, as many as long as it lasts."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
import time
from collections.abc import Iterator

HEAD = b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\n"
KINDS: dict[str, tuple[int, bytes, bytes]] = {  # by name: how many, what each sends at first, and then now and then
    "idle": (1000, b"", b""),
    "half-sent requests": (1000, HEAD + b"Content-Length: 99999\r\n\r\nhalf", b""),
    "dripping headers": (100, HEAD + b"X-Slow: ", b"z"),
    "dripping bodies of a refused type": (42, HEAD.replace(b"jpeg", b"tiff") + b"Content-Length: 9999\r\n\r\n", b"z"),
}

_DRIP_SECONDS = 0.25


@contextlib.contextmanager
def slow_peers(port: int, count: int, first: bytes, drip: bytes) -> Iterator[None]:
    """Keep `count` connections open within the block: one that the server closes is opened again."""
    done = threading.Event()
    thread = threading.Thread(target=_keep, args=(port, count, first, drip, done), daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _keep(port: int, count: int, first: bytes, drip: bytes, done: threading.Event) -> None:
    selector, open_ = selectors.DefaultSelector(), set()
    next_drip = 0.0
    while not done.is_set():
        for _ in range(min(50, count - len(open_))):
            with contextlib.suppress(OSError):
                peer = socket.create_connection(("127.0.0.1", port), timeout=5)
                open_.add(peer)
                selector.register(peer, selectors.EVENT_READ)
                peer.sendall(first)
        for key, _ in selector.select(0.05):
            with contextlib.suppress(OSError):
                if key.fileobj.recv(2**16):
                    continue
            _drop(key.fileobj, selector, open_)
        if drip and time.monotonic() > next_drip:
            next_drip = time.monotonic() + _DRIP_SECONDS
            for peer in list(open_):
                try:
                    peer.sendall(drip)
                except OSError:
                    _drop(peer, selector, open_)
    for peer in open_:
        peer.close()


def _drop(peer: socket.socket, selector: selectors.BaseSelector, open_: set[socket.socket]) -> None:
    selector.unregister(peer)
    open_.discard(peer)
    peer.close()
