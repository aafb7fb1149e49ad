"""Exit of a stopped job before its deadline."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable

LOG = logging.getLogger(__name__)

_GRACE_SECONDS = 20  # for a stopped job to exit normally: an MXNet operation cannot be interrupted
_WRITING_SECONDS = 60  # more to write a file; SageMaker AI kills the container after 120 s


class Shutdown:
    """Timer that exits the process with code 0, after `complete_model`, if it still runs 20 s after `stop` was set.

    `complete_model` completes the model from the files on the disk, and does not wait for devices. A thread that writes
    files that belong together holds `writing` during the write. Nothing happens before `watch` is called.
    """

    def __init__(self, stop: threading.Event, seconds: float = _GRACE_SECONDS) -> None:
        self.writing = threading.RLock()
        self.complete_model: Callable[[], None] = lambda: None
        self.code: int | None = None  # exit code of the job after it has finished
        self._stop = stop
        self._seconds = seconds

    def watch(self) -> None:
        """Start the timer when `stop` is set."""
        threading.Thread(target=self._watch, name="leave in time", daemon=True).start()

    def _watch(self) -> None:
        self._stop.wait()
        threading.Event().wait(self._seconds)
        LOG.warning(
            "the computation that ran at the stop request did not end within %g s: the job ends without waiting for "
            "it, with what is on the disk",
            self._seconds,
        )
        if self.writing.acquire(timeout=_WRITING_SECONDS) and self.code is None:
            try:
                self.complete_model()
            except Exception:
                LOG.exception("the model could not be completed")
                self.code = 1
        exit_at_once(self.code or 0)


def exit_at_once(code: int) -> None:
    """Exit the process without waiting for MXNet or threads."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
