"""gunicorn's threaded worker, with threads that no sender can hold and a stop that breaks no connection."""

from __future__ import annotations

import contextlib
import select
from typing import Any

from gunicorn import util  # type: ignore[import-untyped]
from gunicorn.workers import gthread  # type: ignore[import-untyped]

from container.serving.bodies import STALL_SECONDS, cut_off

_HEAD_SECONDS = STALL_SECONDS - 1  # for all headers; with the stall itself the socket would fail, without an answer


class Worker(gthread.ThreadWorker):
    """Differs from its parent in who gets a thread, for how long, and in what happens to the last who connect."""

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
        return super().handle_request(req, conn)

    def set_accept_enabled(self, enabled: bool) -> None:
        """Open or close the door; on SIGTERM for good, after those who stand before it have been let in."""
        super().set_accept_enabled(enabled)
        if not self.alive:
            for listener in self.sockets:
                while select.select([listener], [], [], 0)[0]:
                    self.accept(listener)
                listener.close()
