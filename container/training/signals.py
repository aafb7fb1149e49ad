"""The SIGTERM handler of a job."""

from __future__ import annotations

import os
import signal
import threading


def stop_on_sigterm() -> threading.Event:
    """Handle SIGTERM from now on; returns the event that it sets. Without a handler, process 1 would not hear it.

    Python runs a handler between two of the main thread's instructions, which may be minutes apart while it waits for
    MXNet. Therefore another thread sets the event: it reads what C's own handler writes at once.
    """
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda signum, frame: stop.set())
    heard, written = os.pipe()
    os.set_blocking(written, False)
    signal.set_wakeup_fd(written, warn_on_full_buffer=False)
    threading.Thread(target=_listen, args=(heard, stop), name="hear signals", daemon=True).start()
    return stop


def _listen(heard: int, stop: threading.Event) -> None:
    """Set `stop` once SIGTERM is among the signals' numbers that come."""
    while signal.SIGTERM not in (numbers := os.read(heard, 16)) and numbers:
        pass
    stop.set()
