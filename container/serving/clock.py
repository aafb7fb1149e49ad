"""The one clock of a request: until when it is worth working on, and whether who sent it is still there."""

from __future__ import annotations

import select
import socket
import time

from container.serving.refusals import ClientLeft, Overloaded

POLL_SECONDS = 0.5  # how often whoever waits looks at the clock

_WAY_SECONDS = 2  # of the time that the platform allows, left for the way of the answer
_GONE = select.POLLRDHUP | select.POLLHUP | select.POLLERR


class Clock:
    """Starts when a request's headers are there; `timeout` seconds later its answer has to have been sent.

    Times are those of time.monotonic().
    """

    def __init__(self, timeout: float, connection: socket.socket | None = None) -> None:
        self.arrived = time.monotonic()
        self.end = self.arrived + timeout
        self.deadline = self.end - min(_WAY_SECONDS, timeout / 4)
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

    def check(self) -> None:
        """Raise ClientLeft when nobody waits any more, Overloaded when it is too late."""
        if self._presence.poll(0):
            raise ClientLeft
        if self.left < 0:
            raise Overloaded("the answer took too long; try again later, or with a smaller image")
