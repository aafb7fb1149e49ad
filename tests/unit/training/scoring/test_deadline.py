"""An event that time sets, too."""

from __future__ import annotations

import threading
import time

from container.training.scoring.evaluation import Deadline


def test_deadline_is_set_by_the_stop_event() -> None:
    stop = threading.Event()
    until = Deadline(stop, 600)
    assert not until.is_set() and not until.wait(0.001)
    threading.Timer(0.05, stop.set).start()
    start = time.monotonic()
    assert until.wait(60) and until.is_set()
    assert time.monotonic() - start < 30


def test_deadline_is_set_by_time() -> None:
    assert Deadline(threading.Event(), 0).is_set()
    until = Deadline(threading.Event(), 0.05)
    assert not until.is_set()
    assert until.wait() and until.is_set()


def test_deadline_can_be_set_without_the_stop_event() -> None:
    stop = threading.Event()
    until = Deadline(stop, 600)
    until.set()
    assert until.is_set() and not stop.is_set()
