"""Reading of one Pipe mode FIFO with a timeout."""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import select
import threading
import time
from pathlib import Path
from typing import BinaryIO, cast

_SLICE_SECONDS = 0.2  # how soon a wait notices that it is no longer wanted
_BUFFER_BYTES = 2**20


class StreamTimeoutError(Exception):
    """Nothing came for as long as was allowed."""


class StreamCancelledError(Exception):
    """The reader was told to stop."""


def open_fifo(path: Path, seconds: float, stopped: threading.Event) -> BinaryIO:
    """Wait until the FIFO is there and open it for buffered reading.

    Opening and every read raise Silent when nothing happens for `seconds`, and Unwanted once `stopped` is set.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
            return cast(BinaryIO, io.BufferedReader(_Fifo(descriptor, seconds, stopped), _BUFFER_BYTES))
        except FileNotFoundError:
            if time.monotonic() > deadline:
                raise StreamTimeoutError from None
        if stopped.wait(_SLICE_SECONDS):
            raise StreamCancelledError


class _Fifo(io.RawIOBase):
    """The reading end. Not blocking, because a blocking open or read cannot be given up."""

    def __init__(self, descriptor: int, seconds: float, stopped: threading.Event) -> None:
        self._descriptor = descriptor
        with contextlib.suppress(OSError):  # more than the user may have: then it stays at 64 KB
            fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, _BUFFER_BYTES)  # writer and reader wait for each other less
        self._seconds = seconds
        self._stopped = stopped
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLIN)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Read what is there; 0 only when a writer had opened the FIFO and has closed it."""
        deadline = time.monotonic() + self._seconds
        while not self._poll.poll(_SLICE_SECONDS * 1000):  # neither data nor, before the first writer, a hang-up
            if self._stopped.is_set():
                raise StreamCancelledError
            if time.monotonic() > deadline:
                raise StreamTimeoutError
        return os.readv(self._descriptor, [buffer])

    def close(self) -> None:
        if not self.closed:
            os.close(self._descriptor)
        super().close()
