"""The deadline of a request, and the check that its client is connected."""

from __future__ import annotations

import contextlib
import math
import select
import socket
import time
from collections.abc import Iterator

from container.serving.requests import errors

POLL_SECONDS = 0.5  # interval at which a waiting request checks its deadline and its connection

_TRANSFER_SECONDS = 2  # of the timeout, reserved for sending the response
_DISCONNECTED = select.POLLRDHUP | select.POLLHUP | select.POLLERR


class RequestDeadline:
    """Time limits of one request, from its headers on.

    The response must be ready at `respond_by` and sent at `send_by`, `timeout` seconds after the headers. Until the
    inference of its first image starts, the request waits at most `queue_seconds` in total: for the queue, for memory,
    and for an inference slot. Times are values of time.monotonic().
    """

    def __init__(
        self, timeout: float, connection: socket.socket | None = None, queue_seconds: float = math.inf
    ) -> None:
        self.start = time.monotonic()
        self.send_by = self.start + timeout
        self.respond_by = self.send_by - min(_TRANSFER_SECONDS, timeout / 4)
        self.queue_seconds = queue_seconds  # that remain
        self._leave_queue_by = math.inf
        self._poll = select.poll()
        if connection is not None:
            self._poll.register(connection.fileno(), _DISCONNECTED)

    @property
    def remaining(self) -> float:
        """Seconds until the response must be ready."""
        return self.respond_by - time.monotonic()

    @property
    def total(self) -> float:
        """Seconds from the headers until the response must be ready."""
        return self.respond_by - self.start

    @contextlib.contextmanager
    def queue_time(self) -> Iterator[None]:
        """Count the time within the block as time in the queue."""
        start = time.monotonic()
        self._leave_queue_by = start + self.queue_seconds
        try:
            yield
        finally:
            self._leave_queue_by = math.inf
            self.queue_seconds -= time.monotonic() - start

    def end_queue_limit(self) -> None:
        """Remove the limit of the time in the queue, because the inference of the first image starts."""
        self.queue_seconds = math.inf

    def check(self) -> None:
        """Raise ClientDisconnectedError, or ServiceUnavailableError if a time limit has passed."""
        if self._poll.poll(0):
            raise errors.ClientDisconnectedError
        if time.monotonic() > self._leave_queue_by:
            raise errors.queue_timeout()
        if self.remaining < 0:
            raise errors.deadline_exceeded()
