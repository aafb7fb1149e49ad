"""Native threads for inference and other computation, next to the greenlets of the worker."""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from typing import Any, TypeVar

from gevent.threadpool import ThreadPool  # type: ignore[import-untyped]

from container.engines.protocol import CancellationToken, CancelledError
from container.errors import RequestError
from container.serving.requests.deadline import POLL_SECONDS, RequestDeadline

T = TypeVar("T")

_NICENESS = 5  # /ping and new connections have priority: they need a thousandth of the time


class NativeThreadExecutor(Executor):
    """Executor whose functions run on native threads, and whose futures complete in the thread of the greenlets."""

    def __init__(self, count: int) -> None:
        self._pool = ThreadPool(count)
        self._niceness = min(19, os.getpriority(os.PRIO_PROCESS, 0) + _NICENESS)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run the function; other greenlets run while one waits for the future."""
        future: Future[Any] = Future()

        def run() -> tuple[Any, BaseException | None]:
            with contextlib.suppress(OSError):  # threads inherit it, also those that the engine starts
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), self._niceness)
            try:
                return fn(*args, **kwargs), None
            except BaseException as error:  # gevent would write its traceback to stderr
                return None, error

        def complete(greenlet: Any) -> None:
            result, error = greenlet.value
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)

        self._pool.spawn(run).rawlink(complete)
        return future


class InferenceExecutor:
    """Executor with deadlines, and with a limit of concurrent inferences, so that no thread waits in the engine."""

    def __init__(self, executor: Executor, max_concurrent_inferences: int = 1) -> None:
        self.executor = executor
        self._inferences = threading.Semaphore(max_concurrent_inferences)

    def run(
        self, function: Callable[[], T], deadline: RequestDeadline, cancellation: CancellationToken | None = None
    ) -> T:
        """Return the result of `function`; raises what it raises, or what the deadline raises before it starts.

        With a `cancellation` token, the deadline is checked until the end and cancels the function. In each case the
        function has ended when this method returns or raises.
        """
        deadline.check()
        future = self.executor.submit(function)
        expired: RequestError | None = None
        while True:
            try:
                result = future.result(POLL_SECONDS if cancellation and not expired else None)
            except concurrent.futures.TimeoutError:
                try:
                    deadline.check()
                except RequestError as error:
                    expired = error
                    if cancellation:
                        cancellation.ask()
            except CancelledError:
                raise expired or RuntimeError("inference was cancelled without a reason") from None
            else:
                if expired:
                    raise expired
                return result

    @contextlib.contextmanager
    def inference_slot(self, deadline: RequestDeadline) -> Iterator[None]:
        """Wait for one of the concurrent inferences and occupy it within the block; raises what the deadline raises."""
        with deadline.queue_time():
            while not self._inferences.acquire(timeout=POLL_SECONDS):
                deadline.check()
        try:
            yield
        finally:
            self._inferences.release()
