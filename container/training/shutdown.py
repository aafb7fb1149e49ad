"""Exit of a stopped job before its deadline."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable

LOG = logging.getLogger(__name__)

_GRACE_SECONDS = 20  # in which a stopped job ends by itself: nothing interrupts MXNet within an operation
_WRITING_SECONDS = 60  # that a file which is being written has besides; the platform kills after 120


class Shutdown:
    """Ends the process with exit code 0, after `conclude`, when it still runs 20 s after `stop` was set.

    `conclude` makes a whole model of what is on the disk, and waits for no device. Whoever writes files that belong
    together holds `writing` meanwhile. Nothing happens before `watch`.
    """

    def __init__(self, stop: threading.Event, seconds: float = _GRACE_SECONDS) -> None:
        self.writing = threading.RLock()
        self.conclude: Callable[[], None] = lambda: None
        self.code: int | None = None  # the job's exit code, once it is over
        self._stop = stop
        self._seconds = seconds

    def watch(self) -> None:
        """Begin to watch, until the process ends."""
        threading.Thread(target=self._watch, name="leave in time", daemon=True).start()

    def _watch(self) -> None:
        self._stop.wait()
        threading.Event().wait(self._seconds)
        LOG.warning(
            "what was under way when the stop was asked for still goes on after %g s: the job ends without waiting for "
            "it, with what is on the disk",
            self._seconds,
        )
        if self.writing.acquire(timeout=_WRITING_SECONDS) and self.code is None:
            try:
                self.conclude()
            except Exception:
                LOG.exception("the model could not be concluded")
                self.code = 1
        exit_at_once(self.code or 0)


def exit_at_once(code: int) -> None:
    """End the process without waiting for MXNet or for threads."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
