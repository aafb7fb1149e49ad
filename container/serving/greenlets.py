"""Native threads for a process whose own threads are greenlets."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

from gevent.threadpool import ThreadPool  # type: ignore[import-untyped]


class NativeThreads(Executor):
    """Runs functions on native threads; their futures are set, and call back, in the thread of the greenlets."""

    def __init__(self, count: int) -> None:
        self._pool = ThreadPool(count)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run the function; waiting for its future lets other greenlets go on."""
        future: Future[Any] = Future()

        def run() -> tuple[Any, BaseException | None]:
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
