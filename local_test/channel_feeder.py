"""Feeder of one Pipe mode channel: one FIFO after another, each with one pass over the records."""

from __future__ import annotations

import contextlib
import os
import random
import select
import threading
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from container.codecs.recordio import frame
from local_test.manifest import Value

_POLL_SECONDS = 0.05


class _CancelledError(Exception):
    """The feeder was stopped."""


class ChannelFeeder:
    """Thread that feeds one channel through `<data>/<name>_0`, `<name>_1`, and so on.

    `rows` contains the values of each manifest line in the order of the attributes. If `shuffle_seed` is None, the
    order of the rows does not change.
    """

    def __init__(self, data: Path, name: str, rows: list[list[Value]], shuffle_seed: int | None, gzip: bool) -> None:
        self.error: Exception | None = None
        self._stem = data / name
        self._rows = list(rows)
        self._random = None if shuffle_seed is None else random.Random(shuffle_seed)
        self._gzip = gzip
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"feed-{name}")

    def start(self) -> None:
        """Create the first FIFO, and feed it in the background."""
        for left in sorted(self._stem.parent.glob(f"{self._stem.name}_*")):
            if left.is_fifo():
                left.unlink()
        self._make_fifo(0)
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread. The stream of a reader ends, and all FIFOs are deleted."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        number = 0
        try:
            while True:
                self._feed(number)
                number += 1
        except _CancelledError:
            pass
        except Exception as error:  # main() stops the other channels and reports the error
            self.error = error
        finally:
            for left in (number, number + 1):
                self._remove_fifo(left)

    def _feed(self, number: int) -> None:
        """Wait for a reader of FIFO `number`, create the next FIFO, and write one pass; the reader can stop early."""
        pipe = self._open(number)
        try:
            self._make_fifo(number + 1)
            rows = list(self._rows)
            if self._random:
                self._random.shuffle(rows)
            buffers = _records(rows)
            for buffer in _compress(buffers) if self._gzip else buffers:
                self._write(pipe, buffer)
        except BrokenPipeError:
            pass
        finally:
            os.close(pipe)
        self._fifo(number).unlink(missing_ok=True)

    def _open(self, number: int) -> int:
        """Open the FIFO when it has a reader, without blocking, so that `stop` works."""
        while True:
            with contextlib.suppress(OSError):  # ENXIO: there is no reader yet
                return os.open(self._fifo(number), os.O_WRONLY | os.O_NONBLOCK)
            if self._stop.wait(_POLL_SECONDS):
                raise _CancelledError

    def _write(self, pipe: int, buffer: bytes | memoryview) -> None:
        rest = memoryview(buffer)
        while rest:
            if self._stop.is_set():
                raise _CancelledError
            if select.select([], [pipe], [], _POLL_SECONDS)[1]:
                with contextlib.suppress(BlockingIOError):
                    rest = rest[os.write(pipe, rest) :]

    def _fifo(self, number: int) -> Path:
        return self._stem.with_name(f"{self._stem.name}_{number}")

    def _make_fifo(self, number: int) -> None:
        os.mkfifo(self._fifo(number), 0o644)

    def _remove_fifo(self, number: int) -> None:
        """Delete a FIFO. A reader that waits in open() gets an empty stream."""
        path = self._fifo(number)
        with contextlib.suppress(OSError):
            waiting = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
            path.unlink()
            os.close(waiting)
        path.unlink(missing_ok=True)


def _records(rows: Iterable[list[Value]]) -> Iterator[bytes | memoryview]:
    for row in rows:
        for value in row:
            yield from frame(value.read())


def _compress(buffers: Iterable[bytes | memoryview]) -> Iterator[bytes]:
    """Compress a stream as one gzip member."""
    packer = zlib.compressobj(wbits=31)
    for buffer in buffers:
        yield packer.compress(buffer)
    yield packer.flush()
