"""Who is answered when: seats for the requests that are worked on, a bounded queue for those that wait."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections import deque
from collections.abc import Iterator

from container.errors import RequestError

_LEAST_PIXELS = 2**16  # what a request costs at least, however small its image
_NEWEST = 0.3  # the weight of the newest duration in their moving average
_POLL_SECONDS = 0.25


class Overloaded(RequestError):
    """503: the request is refused at once; `retry_after` is the seconds after which it may fare better."""

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(503, message)
        self.retry_after = max(1, math.ceil(retry_after))


class Gate:
    """Lets `seats` requests work at the same time, first come first served, and holds at most `places` in all.

    The bodies of those that it holds have at most `body_bytes` together. Times are those of time.monotonic().
    """

    def __init__(self, seats: int, places: int, body_bytes: float = math.inf) -> None:
        self.seats = seats
        self._places = places
        self._body_bytes = body_bytes
        self._lock = threading.Lock()
        self._held = 0
        self._held_bytes = 0
        self._free = seats
        self._queue: deque[_Ticket] = deque()
        self._pixels = 0  # of the images that wait or are worked on
        self._seconds_per_pixel = 0.0  # of one seat; 0 before the first answer
        self._closing = math.inf  # when whoever still waits is to be refused

    @property
    def waiting(self) -> int:
        """How many requests wait for a seat."""
        return len(self._queue)

    def take_place(self, body: int) -> None:
        """Count a request in, whose body has up to so many bytes; it has to call `leave_place` later.

        Raises Overloaded when all places are taken, or when the bodies that are here leave no room for another one.
        """
        with self._lock:
            if self._held >= self._places:
                message = f"{self._places} requests are here already; try again later or add instances"
                raise Overloaded(message, self._estimate(0))
            if self._held and self._held_bytes + body > self._body_bytes:
                message = f"{self._held_bytes} bytes of other requests are here already; try again later or add memory"
                raise Overloaded(message, self._estimate(0))
            self._held += 1
            self._held_bytes += body

    def leave_place(self, body: int) -> None:
        """Count a request out, with the bytes that it was counted in with."""
        with self._lock:
            self._held -= 1
            self._held_bytes -= body

    @contextlib.contextmanager
    def seat(self, pixels: int, deadline: float) -> Iterator[None]:
        """Wait for a seat and hold it within the block, which should be over by `deadline`.

        Raises Overloaded: at once when the queue is too long for that, or when the deadline comes first.
        """
        ticket = _Ticket(max(pixels, _LEAST_PIXELS))
        self._enter(ticket, deadline)
        try:
            self._wait(ticket, deadline)
            start = time.monotonic()
            yield
            self._learn((time.monotonic() - start) / ticket.pixels)
        finally:
            self._leave(ticket)

    def close_in(self, seconds: float) -> None:
        """Refuse whoever waits in so many seconds; may be called by a signal handler."""
        self._closing = time.monotonic() + seconds

    def _enter(self, ticket: _Ticket, deadline: float) -> None:
        with self._lock:
            late = time.monotonic() + self._estimate(ticket.pixels) - min(deadline, self._closing)
            if late > 0 and self._pixels:  # with nobody ahead it is worth trying
                message = f"{len(self._queue)} requests wait: this one would not be answered in time; try again later"
                raise Overloaded(message, late)
            self._pixels += ticket.pixels
            if self._free and not self._queue:
                self._free -= 1
                ticket.called.set()
            else:
                self._queue.append(ticket)

    def _wait(self, ticket: _Ticket, deadline: float) -> None:
        while not ticket.called.wait(_POLL_SECONDS):
            if time.monotonic() > min(deadline, self._closing):
                raise Overloaded("the requests before this one took too long; try again later", self._estimate(0))

    def _leave(self, ticket: _Ticket) -> None:
        with self._lock:
            self._pixels -= ticket.pixels
            if not ticket.called.is_set():
                self._queue.remove(ticket)
            elif self._queue:
                self._queue.popleft().called.set()
            else:
                self._free += 1

    def _estimate(self, pixels: int) -> float:
        """Return in how many seconds a request that comes now is answered; 0 before the first answer."""
        return (self._pixels / self.seats + pixels) * self._seconds_per_pixel

    def _learn(self, seconds_per_pixel: float) -> None:
        with self._lock:
            known = self._seconds_per_pixel
            self._seconds_per_pixel = known + _NEWEST * (seconds_per_pixel - known) if known else seconds_per_pixel


class _Ticket:
    def __init__(self, pixels: int) -> None:
        self.pixels = pixels
        self.called = threading.Event()
