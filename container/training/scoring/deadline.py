"""An event that is also set by a deadline."""

from __future__ import annotations

import threading
import time


class Deadline(threading.Event):
    """Counts as set once `stop` is, or once so many seconds have passed."""

    def __init__(self, stop: threading.Event, seconds: float) -> None:
        super().__init__()
        self._stopped = stop
        self._end = time.monotonic() + seconds

    def is_set(self) -> bool:
        """Tell whether it is time to end."""
        return super().is_set() or self._stopped.is_set() or time.monotonic() >= self._end

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is time to end, at most so many seconds; tell whether it is."""
        left = max(0.0, self._end - time.monotonic())
        self._stopped.wait(left if timeout is None else min(timeout, left))
        return self.is_set()
