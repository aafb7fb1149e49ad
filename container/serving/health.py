"""Health of the engine: repeated inference failures end the worker."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator

from container.errors import RequestError, last_line

LOG = logging.getLogger("gunicorn.error")  # the server's own log

FAILURES = 3  # in a row, after which the worker is ended


def end_worker() -> None:
    """Let gunicorn end this worker in good order, and start another, which loads the model anew."""
    os.kill(os.getpid(), signal.SIGTERM)


def end_server() -> None:
    """End the whole server: what a multi-model endpoint has loaded, the platform then loads again."""
    os.kill(os.getppid(), signal.SIGTERM)


class Health:
    """Counts the engine's failures in a row, on any images; the third calls `end`, once."""

    def __init__(self, end: Callable[[], None]) -> None:
        self._end = end
        self._lock = threading.Lock()
        self._failures = 0

    @property
    def is_good(self) -> bool:
        """Say whether the engine has not failed for good."""
        return self._failures < FAILURES

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Watch the block, in which the engine answers one image; a refusal or cancellation is no failure."""
        try:
            yield
        except RequestError:
            raise
        except Exception as error:
            self._count(error)
            raise
        with self._lock:
            if self.is_good:
                self._failures = 0

    def _count(self, error: Exception) -> None:
        with self._lock:
            if not self.is_good:
                return
            self._failures += 1
            ended = not self.is_good
        if ended:
            line = "the engine has failed on %d images in a row, lastly with %s: its process ends, to be started anew"
            LOG.error(line, FAILURES, last_line(error) or type(error).__name__)
            self._end()
