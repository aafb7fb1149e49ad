"""The request queue: concurrent requests, with a time limit."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections import deque
from collections.abc import Iterator

from container.serving.requests.deadline import POLL_SECONDS, RequestDeadline
from container.serving.requests.errors import ServiceUnavailableError


class RequestQueue:
    """Lets `seats` requests work at the same time, first come first served; `lanes` of them compute at full speed.

    A request that would have to wait for longer than its clock allows is refused at once. Times are those of
    time.monotonic().
    """

    def __init__(self, seats: int, lanes: int = 1) -> None:
        self.seats = seats
        self._lanes = lanes
        self._lock = threading.Lock()
        self._working: list[_QueuedRequest] = []
        self._queue: deque[_QueuedRequest] = deque()
        self._closing = math.inf  # when whoever still waits is to be refused

    @property
    def waiting(self) -> int:
        """How many requests wait for a seat."""
        return len(self._queue)

    @property
    def working(self) -> int:
        """How many seats are taken."""
        return len(self._working)

    @contextlib.contextmanager
    def seat(self, seconds: float, clock: RequestDeadline) -> Iterator[None]:
        """Wait for a seat and hold it within the block, whose work will take about so many seconds.

        Raises Overloaded: at once when the queue is too long, or when the clock ends first; and ClientLeft.
        """
        ticket = _QueuedRequest(seconds)
        self._enter(ticket, clock)
        try:
            self._wait(ticket, clock)
            yield
        finally:
            self._leave(ticket)

    def close_in(self, seconds: float) -> None:
        """Refuse whoever waits in so many seconds; may be called by a signal handler."""
        self._closing = time.monotonic() + seconds

    def _enter(self, ticket: _QueuedRequest, clock: RequestDeadline) -> None:
        with self._lock:
            wait = self._wait_ahead()
            allowed = min(clock.queue_left, clock.left - ticket.seconds, self._closing - time.monotonic())
            if wait > max(allowed, 0.0):  # with nobody ahead it is worth trying
                message = f"{len(self._queue)} requests wait, for about {wait:.0f} s; try again later or add instances"
                raise ServiceUnavailableError(message, wait - allowed)
            self._queue.append(ticket)
            self._call_next()

    def _wait(self, ticket: _QueuedRequest, clock: RequestDeadline) -> None:
        with clock.waiting():
            while not ticket.called.wait(POLL_SECONDS):
                clock.check()
                if time.monotonic() > self._closing:
                    raise ServiceUnavailableError(
                        "the requests before this one took too long; try again later", self._wait_ahead()
                    )

    def _leave(self, ticket: _QueuedRequest) -> None:
        with self._lock:
            (self._working if ticket.called.is_set() else self._queue).remove(ticket)
            self._call_next()

    def _call_next(self) -> None:
        while self._queue and len(self._working) < self.seats:
            ticket = self._queue.popleft()
            ticket.start = time.monotonic()
            self._working.append(ticket)
            ticket.called.set()

    def _wait_ahead(self) -> float:
        """Return in how many seconds those who are here will have been answered."""
        now = time.monotonic()
        left = sum(max(0.0, ticket.start + ticket.seconds - now) for ticket in self._working)
        return (left + sum(ticket.seconds for ticket in self._queue)) / self._lanes


class _QueuedRequest:
    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.start = 0.0
        self.called = threading.Event()
