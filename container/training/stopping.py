"""SIGTERM, from the first moment on: nothing heavy is imported here."""

from __future__ import annotations

import signal
import threading


def stop_on_sigterm() -> threading.Event:
    """Handle SIGTERM from now on; returns the event that it sets. Without a handler, process 1 would not hear it."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda signum, frame: stop.set())
    return stop
