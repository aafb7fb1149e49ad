"""gunicorn's threaded worker: no sender holds its threads, its start refuses nobody in vain, its stop loses nobody."""

from __future__ import annotations

import contextlib
import mmap
import select
from typing import Any

from gunicorn import util  # type: ignore[import-untyped]
from gunicorn.workers import gthread  # type: ignore[import-untyped]

from container.serving.bodies import STALL_SECONDS, cut_off

_HEAD_SECONDS = STALL_SECONDS - 1  # for all headers; with the stall itself the socket would fail, without an answer

_ready = mmap.mmap(-1, mmap.PAGESIZE)  # by worker's number, whether its model is loaded; shared by all processes


class Worker(gthread.ThreadWorker):
    """Differs from its parent in who gets a thread, for how long, and in what happens to the first and the last.

    While its model is being loaded a worker accepts, in order to refuse, as long as no other worker can answer.
    """

    def take_number(self, number: int) -> None:
        """Be the worker of this number, in gunicorn's master; the one that had it before is gone."""
        self.number = number
        _ready[number] = 0

    def load_wsgi(self) -> None:
        """Create the application, which goes on loading its model."""
        super().load_wsgi()
        if model := self.wsgi.extensions.get("model"):
            model.add_done_callback(self._accept_from_now_on)
        else:  # a multi-model endpoint loads what it is asked to
            _ready[self.number] = 1

    def _accept_from_now_on(self, _: Any) -> None:
        _ready[self.number] = 1
        self.method_queue.defer(lambda: None)  # wakes the main loop

    def _may_accept(self) -> bool:
        return bool(_ready[self.number]) or not any(_ready[:])

    def accept(self, listener: Any) -> None:
        """Accept a connection, or leave it to another worker."""
        if self._may_accept():
            super().accept(listener)
        else:
            super().set_accept_enabled(False)

    def handle(self, conn: Any) -> Any:
        """Handle a connection which has sent something; one that is silent waits without a thread."""
        if self.alive and not conn.initialized and not conn.wait_for_data(0):
            return gthread._DEFER
        with contextlib.ExitStack() as conn.arriving:
            conn.late = conn.arriving.enter_context(cut_off(conn.sock, _HEAD_SECONDS))
            keep = super().handle(conn)
        if conn.late.is_set():
            with contextlib.suppress(OSError):
                util.write_error(conn.sock, 408, "Request Timeout", f"no headers within {_HEAD_SECONDS} s")
        return keep

    def handle_request(self, req: Any, conn: Any) -> Any:
        """Answer a request whose headers are all there."""
        conn.arriving.close()
        conn.late.clear()
        if not _ready[self.number]:
            req.force_close()  # the next request may find another worker that is ready
        return super().handle_request(req, conn)

    def set_accept_enabled(self, enabled: bool) -> None:
        """Open or close the door; on SIGTERM for good, after those who stand before it have been let in."""
        super().set_accept_enabled(enabled and self._may_accept())
        if not (enabled or self.alive):
            for listener in self.sockets:
                while self._may_accept() and select.select([listener], [], [], 0)[0]:
                    self.accept(listener)
                listener.close()
