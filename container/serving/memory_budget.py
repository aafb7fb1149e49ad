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

from container.errors import RequestError
from container.serving.requests.deadline import POLL_SECONDS, RequestDeadline
from container.serving.requests.errors import ServiceUnavailableError

KINDS = ("models", "bodies", "work", "computing", "answers")

_BODIES_SHARE = 8  # one part in so many is for bodies: however many wait, one image can always be worked on


@dataclasses.dataclass(frozen=True)
class MemoryEstimate:
    """The bytes that an image takes while it is worked on, and those that it takes only while it is computed."""

    kept: int
    passing: int = 0


class MemoryBudget:
    """What one process may take beside what it weighs, `total` bytes, and what of it is given out.

    Of all images that are worked on, only as many as there are `lanes` are computed at once: what they take only then
    is entered as `computing`, for those that take most. Everything that waits for memory, or for a model, waits on
    `changed`, which guards all of this.
    """

    def __init__(self, total: int = 2**62, image_bound: int | None = None, lanes: int = 1) -> None:
        self.total = total
        self._lanes = lanes
        self._passing: list[int] = []  # what each image takes while it is computed
        self.changed = threading.Condition()
        self.taken: Counter[str] = Counter()
        self.most_taken = 0
        self._image_bound = image_bound
        self._queue: deque[object] = deque()  # who waits, the first first

    @property
    def bodies(self) -> int:
        """How many bytes the bodies of all requests may have."""
        return self.total // _BODIES_SHARE

    @property
    def room(self) -> int:
        """How many bytes one image may take, with its model where models come and go."""
        return self.total - self.bodies

    @property
    def image_room(self) -> int:
        """How many bytes one image may take while it is answered."""
        return self.room if self._image_bound is None else min(self.room, self._image_bound)

    @property
    def free(self) -> int:
        """How many bytes are not given out."""
        return self.total - self.taken.total()

    def short(self, work: MemoryEstimate, besides: int = 0) -> int:
        """Return how many bytes are missing for these to be taken, those kept for bodies left alone; 0 if none."""
        kept = max(0, self.bodies - self.taken["bodies"])
        computing = self._computing([*self._passing, work.passing]) - self.taken["computing"]
        return max(0, work.kept + computing + besides + kept - self.free)

    def take(self, kind: str, size: int) -> None:
        """Give out; the caller holds the lock, and has seen that it fits."""
        self.taken[kind] += size
        self.most_taken = max(self.most_taken, self.taken.total())

    def give(self, kind: str, size: int) -> None:
        """Take back, and wake whoever waits; the caller holds the lock."""
        self.taken[kind] -= size
        self.changed.notify_all()

    def pass_through(self, work: MemoryEstimate) -> None:
        """Enter what an image takes only while it is computed; the caller holds the lock, and has seen that it fits."""
        self._passing.append(work.passing)
        self.take("computing", self._computing(self._passing) - self.taken["computing"])

    def have_passed(self, work: MemoryEstimate) -> None:
        """Take that back; the caller holds the lock."""
        self._passing.remove(work.passing)
        self.give("computing", self.taken["computing"] - self._computing(self._passing))

    def _computing(self, passing: list[int]) -> int:
        return sum(sorted(passing)[-self._lanes :])

    def wait_for(self, condition: Callable[[], bool], clock: RequestDeadline) -> None:
        """Wait for what holds under the lock, which the caller has; who came first goes first.

        Raises what the clock raises.
        """
        turn = object()
        self._queue.append(turn)
        try:
            with clock.waiting():
                while self._queue[0] is not turn or not condition():
                    clock.check()
                    self.changed.wait(min(POLL_SECONDS, max(0.01, clock.left)))
        finally:
            self._queue.remove(turn)
            self.changed.notify_all()

    def account(self) -> Reservation:
        """Return an account for one request, which has to be closed."""
        return Reservation(self)


class Reservation:
    """What one request holds."""

    def __init__(self, ledger: MemoryBudget) -> None:
        self._ledger = ledger
        self._held: Counter[str] = Counter()
        self._work: MemoryEstimate | None = None

    def add_body(self, size: int) -> None:
        """Take memory for so many bytes more of the request's body.

        Raises RequestError: 413 for a body that will never fit, 503 when those of others are in the way.
        """
        ledger = self._ledger
        if self._held["bodies"] + size > ledger.bodies:
            allowed = f"more than the {ledger.bodies} bytes that this server's memory allows"
            raise RequestError(413, f"the body has {allowed}; compress or scale the image, or add memory")
        with ledger.changed:
            if ledger.taken["bodies"] + size > ledger.bodies:
                here = f"{ledger.taken['bodies']} bytes of requests are here already"
                raise ServiceUnavailableError(f"{here}; try again later or add memory")
            self._take("bodies", size)

    def drop_body(self) -> None:
        """Give the body's memory back."""
        self._give("bodies")

    def wait_for_work(self, work: MemoryEstimate, clock: RequestDeadline) -> None:
        """Take the memory that an image needs while it is worked on, as soon as it is there."""
        with self._ledger.changed:
            self._ledger.wait_for(lambda: not self._ledger.short(work), clock)
            self.take_work(work)

    def take_work(self, work: MemoryEstimate) -> None:
        """Take it at once; the caller holds the lock, and has seen that it fits."""
        self._take("work", work.kept)
        self._ledger.pass_through(work)
        self._work = work

    def keep_answer(self, size: int) -> None:
        """Give back what the work took, all but the answer's bytes."""
        with self._ledger.changed:
            self._end_work()
            self._take("answers", size)

    def close(self) -> None:
        """Give everything back."""
        self._end_work()
        for kind in list(self._held):
            self._give(kind)

    def _end_work(self) -> None:
        if self._work is not None:
            with self._ledger.changed:
                self._ledger.have_passed(self._work)
            self._work = None
            self._give("work")

    def _take(self, kind: str, size: int) -> None:
        self._ledger.take(kind, size)
        self._held[kind] += size

    def _give(self, kind: str) -> None:
        with self._ledger.changed:
            self._ledger.give(kind, self._held.pop(kind, 0))


def weigh() -> int:
    """Return the bytes of memory that this process holds, and those that its parent does not share with it."""
    with contextlib.suppress(OSError, AttributeError):  # no glibc
        ctypes.CDLL(None).malloc_trim(0)  # what has been freed but not given back would be counted for ever
    fields = ("Private_Clean:", "Private_Dirty:")
    return sum(_rollup("self", "Rss:")) + sum(_rollup(str(os.getppid()), *fields))


def _rollup(process: str, *fields: str) -> list[int]:
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:  # another user's
        return []
    return [int(line.split()[1]) * 1024 for line in lines if line.startswith(fields)]
