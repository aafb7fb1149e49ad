"""The memory budget of a server process."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import os
import threading
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path

from container.serving.requests import errors
from container.serving.requests.deadline import POLL_SECONDS, RequestDeadline

KINDS = ("models", "bodies", "work", "computing", "answers")  # labels of the metrics

_BODIES_SHARE = 8  # an eighth is for bodies: queued bodies never use the memory that one image needs


@dataclasses.dataclass(frozen=True)
class MemoryEstimate:
    """Bytes that a request needs while it is processed (`base`), and in addition during inference (`transient`)."""

    base: int
    transient: int = 0


class MemoryBudget:
    """The memory that one process can use in addition to its own size, and the reservations of requests and models.

    Only `max_concurrent_inferences` requests run inference at the same time. Therefore, of the transient estimates,
    only the largest ones are reserved (as `computing`). `changed` guards all attributes; requests that wait for memory
    or for a model wait on it. `image_memory` limits the memory of one image.
    """

    def __init__(self, total: int = 2**62, image_memory: int | None = None, max_concurrent_inferences: int = 1) -> None:
        self.total = total
        self._image_memory = image_memory
        self._max_concurrent_inferences = max_concurrent_inferences
        self._transient: list[int] = []
        self.changed = threading.Condition()
        self.reserved: Counter[str] = Counter()
        self.peak = 0
        self._waiting: deque[object] = deque()  # in the order of arrival

    @property
    def body_limit(self) -> int:
        """Bytes that the bodies of all requests can have."""
        return self.total // _BODIES_SHARE

    @property
    def request_limit(self) -> int:
        """Bytes that one image can use, including its model on a multi-model endpoint."""
        return self.total - self.body_limit

    @property
    def image_limit(self) -> int:
        """Bytes that one image can use while it is processed."""
        return self.request_limit if self._image_memory is None else min(self.request_limit, self._image_memory)

    @property
    def free(self) -> int:
        """Bytes that are not reserved."""
        return self.total - self.reserved.total()

    def shortage(self, estimate: MemoryEstimate, additional: int = 0) -> int:
        """Return the bytes missing for an estimate and `additional` bytes; the share of the bodies is not free."""
        bodies = max(0, self.body_limit - self.reserved["bodies"])
        computing = self._computing([*self._transient, estimate.transient]) - self.reserved["computing"]
        return max(0, estimate.base + computing + additional + bodies - self.free)

    def reserve(self, kind: str, size: int) -> None:
        """Reserve bytes; the caller holds the lock and has checked that they are free."""
        self.reserved[kind] += size
        self.peak = max(self.peak, self.reserved.total())

    def release(self, kind: str, size: int) -> None:
        """Release bytes and wake waiting requests; the caller holds the lock."""
        self.reserved[kind] -= size
        self.changed.notify_all()

    def reserve_transient(self, size: int) -> None:
        """Reserve the transient bytes of a request; the caller holds the lock and has checked that they are free."""
        self._transient.append(size)
        self.reserve("computing", self._computing(self._transient) - self.reserved["computing"])

    def release_transient(self, size: int) -> None:
        """Release the transient bytes of a request; the caller holds the lock."""
        self._transient.remove(size)
        self.release("computing", self.reserved["computing"] - self._computing(self._transient))

    def _computing(self, transient: list[int]) -> int:
        return sum(sorted(transient)[-self._max_concurrent_inferences :])

    def wait_until(self, condition: Callable[[], bool], deadline: RequestDeadline) -> None:
        """Wait until the condition holds, first come, first served; the caller holds the lock.

        Raises what the deadline raises.
        """
        ticket = object()
        self._waiting.append(ticket)
        try:
            with deadline.queue_time():
                while self._waiting[0] is not ticket or not condition():
                    deadline.check()
                    self.changed.wait(min(POLL_SECONDS, max(0.01, deadline.remaining)))
        finally:
            self._waiting.remove(ticket)
            self.changed.notify_all()


class Reservation:
    """The memory that one request has reserved in a budget; must be closed."""

    def __init__(self, budget: MemoryBudget) -> None:
        self._budget = budget
        self._reserved: Counter[str] = Counter()
        self._transient: int | None = None

    def add_body(self, size: int) -> None:
        """Reserve `size` more bytes for the body.

        Raises RequestError: 413 if the body can never fit, 503 if it does not fit next to those of other requests.
        """
        budget = self._budget
        if self._reserved["bodies"] + size > budget.body_limit:
            raise errors.body_exceeds_memory(budget.body_limit)
        with budget.changed:
            if budget.reserved["bodies"] + size > budget.body_limit:
                raise errors.bodies_exceed_memory(budget.reserved["bodies"])
            self._reserve("bodies", size)

    def release_body(self) -> None:
        """Release the memory of the body."""
        self._release("bodies")

    def wait_for_memory(self, estimate: MemoryEstimate, deadline: RequestDeadline) -> None:
        """Reserve the estimate as soon as it is free; raises what the deadline raises."""
        with self._budget.changed:
            self._budget.wait_until(lambda: not self._budget.shortage(estimate), deadline)
            self.reserve_estimate(estimate)

    def reserve_estimate(self, estimate: MemoryEstimate) -> None:
        """Reserve the estimate; the caller holds the lock and has checked that it is free."""
        self._reserve("work", estimate.base)
        self._budget.reserve_transient(estimate.transient)
        self._transient = estimate.transient

    def replace_estimate(self, response_size: int) -> None:
        """Release the estimate, and reserve the bytes of the response instead."""
        with self._budget.changed:
            self._release_estimate()
            self._reserve("answers", response_size)

    def close(self) -> None:
        """Release everything."""
        self._release_estimate()
        for kind in list(self._reserved):
            self._release(kind)

    def _release_estimate(self) -> None:
        if self._transient is not None:
            with self._budget.changed:
                self._budget.release_transient(self._transient)
            self._transient = None
            self._release("work")

    def _reserve(self, kind: str, size: int) -> None:
        self._budget.reserve(kind, size)
        self._reserved[kind] += size

    def _release(self, kind: str) -> None:
        with self._budget.changed:
            self._budget.release(kind, self._reserved.pop(kind, 0))


def process_memory() -> int:
    """Return the bytes of memory of this process, including those of its parent that the two do not share."""
    with contextlib.suppress(OSError, AttributeError):  # no glibc
        ctypes.CDLL(None).malloc_trim(0)  # else freed memory that glibc retains would count forever
    fields = ("Private_Clean:", "Private_Dirty:")
    return sum(_read_rollup("self", "Rss:")) + sum(_read_rollup(str(os.getppid()), *fields))


def _read_rollup(process: str, *fields: str) -> list[int]:
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:  # a process of another user
        return []
    return [int(line.split()[1]) * 1024 for line in lines if line.startswith(fields)]
