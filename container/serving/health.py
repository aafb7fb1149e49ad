"""Health of the engine: after repeated inference failures, the worker exits."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator

from container.errors import RequestError, last_line

LOG = logging.getLogger("gunicorn.error")  # the log of the server

MAX_FAILURES = 3  # consecutive ones, after which the worker exits


def stop_worker() -> None:
    """Let gunicorn stop this worker gracefully and start another, which loads the model again."""
    os.kill(os.getpid(), signal.SIGTERM)


def stop_server() -> None:
    """Stop the server of a multi-model endpoint: SageMaker AI then loads the models into a new container."""
    os.kill(os.getppid(), signal.SIGTERM)


class Health:
    """Counter of consecutive inference failures; calls `stop` once, after the third."""

    def __init__(self, stop: Callable[[], None]) -> None:
        self._stop = stop
        self._lock = threading.Lock()
        self._failures = 0

    @property
    def is_healthy(self) -> bool:
        """Whether the number of consecutive failures is below the limit."""
        return self._failures < MAX_FAILURES

    @contextlib.contextmanager
    def monitor(self) -> Iterator[None]:
        """Count a failure of the inference in the block; rejected and canceled requests are not failures."""
        try:
            yield
        except RequestError:
            raise
        except Exception as error:
            self._count(error)
            raise
        with self._lock:
            if self.is_healthy:
                self._failures = 0

    def _count(self, error: Exception) -> None:
        with self._lock:
            if not self.is_healthy:
                return
            self._failures += 1
            is_last = not self.is_healthy
        if is_last:
            message = "Inference failed for %d consecutive images. The process exits and is restarted. Last error: %s"
            LOG.error(message, MAX_FAILURES, last_line(error) or type(error).__name__)
            self._stop()
