"""The deadline of a request, and the check that its client is connected."""

from __future__ import annotations

import contextlib
import math
import select
import socket
import time
from collections.abc import Iterator

from container.serving.requests.errors import ClientDisconnectedError, ServiceUnavailableError

POLL_SECONDS = 0.5  # how often whoever waits looks at the clock

_WAY_SECONDS = 2  # of the time that the platform allows, left for the way of the answer
_GONE = select.POLLRDHUP | select.POLLHUP | select.POLLERR


class RequestDeadline:
    """Starts when a request's headers are there; `timeout` seconds later its answer has to have been sent.

    Until its first image is computed, the request waits for at most `queue_seconds` in total: for a seat, for memory,
    for a lane. Times are those of time.monotonic().
    """

    def __init__(
        self, timeout: float, connection: socket.socket | None = None, queue_seconds: float = math.inf
    ) -> None:
        self.arrived = time.monotonic()
        self.end = self.arrived + timeout
        self.deadline = self.end - min(_WAY_SECONDS, timeout / 4)
        self.queue_left = queue_seconds
        self._queue_end = math.inf  # while it waits: when it has waited for long enough
        self._presence = select.poll()
        if connection is not None:
            self._presence.register(connection.fileno(), _GONE)

    @property
    def left(self) -> float:
        """Seconds until the answer must be ready to be sent."""
        return self.deadline - time.monotonic()

    @property
    def allowance(self) -> float:
        """Seconds that there were at first."""
        return self.deadline - self.arrived

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time within the block as waiting in the queue."""
        start = time.monotonic()
        self._queue_end = start + self.queue_left
        try:
            yield
        finally:
            self._queue_end = math.inf
            self.queue_left -= time.monotonic() - start

    def leave_queue(self) -> None:
        """Let the request wait from now on as long as its time allows: its first image is being computed."""
        self.queue_left = math.inf

    def check(self) -> None:
        """Raise ClientLeft when nobody waits any more, Overloaded when it is too late or the queue too slow."""
        if self._presence.poll(0):
            raise ClientDisconnectedError
        if time.monotonic() > self._queue_end:
            raise ServiceUnavailableError("the requests before this one took too long (QUEUE_SECONDS); try again later")
        if self.left < 0:
            raise ServiceUnavailableError("the answer took too long; try again later, or with a smaller image")
