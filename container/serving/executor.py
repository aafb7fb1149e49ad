"""Inference and other computation on native threads."""

from __future__ import annotations

import concurrent.futures
import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

from container.engines.protocol import CancellationToken, CancelledError
from container.errors import RequestError
from container.serving.requests.deadline import POLL_SECONDS, RequestDeadline

T = TypeVar("T")


class InferenceExecutor:
    """Runs functions on the threads of `executor`.

    In the server's worker these are the only threads there are: all else are greenlets, which take turns on one.
    There are as many `lanes` as images that the engine computes at once: it never has to make a thread wait.
    """

    def __init__(self, executor: concurrent.futures.Executor, lanes: int = 1) -> None:
        self.executor = executor
        self._lanes = threading.Semaphore(lanes)

    def run(self, function: Callable[[], T], clock: RequestDeadline, stop: CancellationToken | None = None) -> T:
        """Return what `function` returns, or raise what it raises, or what the clock raises before it begins.

        With a `stop` the clock is looked at until the end, and what it raises asks for the stop. Whatever happens,
        nothing is running any more when this is over.
        """
        clock.check()
        future = self.executor.submit(function)
        refusal: RequestError | None = None
        while True:
            try:
                found = future.result(None if refusal or not stop else POLL_SECONDS)
            except concurrent.futures.TimeoutError:
                try:
                    clock.check()
                except RequestError as error:
                    refusal = error
                    if stop:
                        stop.ask()
            except CancelledError:
                raise refusal or RuntimeError("stopped by nobody") from None
            else:
                if refusal:
                    raise refusal
                return found

    @contextlib.contextmanager
    def lane(self, clock: RequestDeadline) -> Iterator[None]:
        """Hold one of the lanes within the block, as soon as one is free; raises what the clock raises before."""
        with clock.waiting():
            while not self._lanes.acquire(timeout=POLL_SECONDS):
                clock.check()
        try:
            yield
        finally:
            self._lanes.release()
