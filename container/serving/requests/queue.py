"""The request queue: concurrent requests, with a time limit."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections import deque
from collections.abc import Iterator

from container.serving.requests import errors
from container.serving.requests.deadline import POLL_SECONDS, RequestDeadline


class RequestQueue:
    """First-in, first-out queue in front of `max_concurrent_requests` slots.

    A request that is expected to wait longer than its deadline allows is rejected immediately. The estimate assumes
    that `max_concurrent_inferences` requests progress in parallel.
    """

    def __init__(self, max_concurrent_requests: int, max_concurrent_inferences: int = 1) -> None:
        self.max_concurrent_requests = max_concurrent_requests
        self._max_concurrent_inferences = max_concurrent_inferences
        self._lock = threading.Lock()
        self._in_flight: list[_QueuedRequest] = []
        self._waiting: deque[_QueuedRequest] = deque()
        self._close_at = math.inf  # time at which waiting requests are rejected

    @property
    def waiting(self) -> int:
        """Number of requests that wait for a slot."""
        return len(self._waiting)

    @property
    def in_flight(self) -> int:
        """Number of requests that have a slot."""
        return len(self._in_flight)

    @contextlib.contextmanager
    def slot(self, seconds: float, deadline: RequestDeadline) -> Iterator[None]:
        """Wait for a slot and occupy it within the block, whose work takes about `seconds`.

        Raises ServiceUnavailableError, immediately if the queue is too long, and what the deadline raises.
        """
        request = _QueuedRequest(seconds)
        self._enqueue(request, deadline)
        try:
            self._wait(request, deadline)
            yield
        finally:
            with self._lock:
                (self._in_flight if request.started.is_set() else self._waiting).remove(request)
                self._start_next()

    def close_in(self, seconds: float) -> None:
        """Reject requests that still wait in `seconds`; a signal handler can call this."""
        self._close_at = time.monotonic() + seconds

    def _enqueue(self, request: _QueuedRequest, deadline: RequestDeadline) -> None:
        with self._lock:
            wait = self._expected_wait()
            limits = (deadline.queue_seconds, deadline.remaining - request.seconds, self._close_at - time.monotonic())
            if wait > max(min(limits), 0.0):  # without earlier requests, try it even if the estimate is too long
                raise errors.queue_full(len(self._waiting), wait, wait - min(limits))
            self._waiting.append(request)
            self._start_next()

    def _wait(self, request: _QueuedRequest, deadline: RequestDeadline) -> None:
        with deadline.queue_time():
            while not request.started.wait(POLL_SECONDS):
                deadline.check()
                if time.monotonic() > self._close_at:
                    raise errors.server_stopping(self._expected_wait())

    def _start_next(self) -> None:
        while self._waiting and len(self._in_flight) < self.max_concurrent_requests:
            request = self._waiting.popleft()
            request.start = time.monotonic()
            self._in_flight.append(request)
            request.started.set()

    def _expected_wait(self) -> float:
        """Return the seconds until the present requests are processed."""
        now = time.monotonic()
        remaining = sum(max(0.0, request.start + request.seconds - now) for request in self._in_flight)
        queued = sum(request.seconds for request in self._waiting)
        return (remaining + queued) / self._max_concurrent_inferences


class _QueuedRequest:
    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.start = 0.0
        self.started = threading.Event()
