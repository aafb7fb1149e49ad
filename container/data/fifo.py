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

_POLL_SECONDS = 0.2  # interval at which a wait checks `stopped`
_BUFFER_BYTES = 2**20


class StreamTimeoutError(Exception):
    """No data arrived before the timeout."""


class StreamCancelledError(Exception):
    """Reading was cancelled."""


def open_fifo(path: Path, seconds: float, stopped: threading.Event) -> BinaryIO:
    """Wait until the FIFO exists, and open it for buffered reading.

    Opening and reading raise StreamTimeoutError after `seconds` without data, and StreamCancelledError if `stopped` is
    set.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
            return cast(BinaryIO, io.BufferedReader(_Fifo(descriptor, seconds, stopped), _BUFFER_BYTES))
        except FileNotFoundError:
            if time.monotonic() > deadline:
                raise StreamTimeoutError from None
        if stopped.wait(_POLL_SECONDS):
            raise StreamCancelledError


class _Fifo(io.RawIOBase):
    """Read end of a FIFO, without blocking, because a blocking open or read cannot be cancelled."""

    def __init__(self, descriptor: int, seconds: float, stopped: threading.Event) -> None:
        self._descriptor = descriptor
        with contextlib.suppress(OSError):  # the limit of the user can be lower, then the size stays at 64 KB
            fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, _BUFFER_BYTES)  # fewer waits
        self._seconds = seconds
        self._stopped = stopped
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLIN)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Read the available data; 0 if a writer opened the FIFO and closed it."""
        deadline = time.monotonic() + self._seconds
        while not self._poll.poll(_POLL_SECONDS * 1000):  # neither data nor, before the first writer, a hang-up
            if self._stopped.is_set():
                raise StreamCancelledError
            if time.monotonic() > deadline:
                raise StreamTimeoutError
        return os.readv(self._descriptor, [buffer])

    def close(self) -> None:
        if not self.closed:
            os.close(self._descriptor)
        super().close()
