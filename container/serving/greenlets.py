"""Native threads next to greenlets."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

from gevent.threadpool import ThreadPool  # type: ignore[import-untyped]

_NICER = 5  # /ping and whoever connects come first: they need a thousandth of the time


class NativeThreadExecutor(Executor):
    """Runs functions on native threads; their futures are set, and call back, in the thread of the greenlets."""

    def __init__(self, count: int) -> None:
        self._pool = ThreadPool(count)
        self._niceness = min(19, os.getpriority(os.PRIO_PROCESS, 0) + _NICER)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run the function; waiting for its future lets other greenlets go on."""
        future: Future[Any] = Future()

        def run() -> tuple[Any, BaseException | None]:
            with contextlib.suppress(OSError):  # what it starts inherits it: the engine's threads too
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), self._niceness)
            try:
                return fn(*args, **kwargs), None
            except BaseException as error:  # gevent would write its traceback to stderr
                return None, error

        def settle(done: Any) -> None:
            found, error = done.value
            if error is None:
                future.set_result(found)
            else:
                future.set_exception(error)

        self._pool.spawn(run).rawlink(settle)
        return future
