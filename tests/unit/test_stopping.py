"""SIGTERM: heard by whoever asked first, and nothing heavy is imported for it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from container.stopping import stop_on_sigterm
from tests.conftest import PROGRAM, wait_until


def test_sigterm_sets_the_event() -> None:
    before = signal.getsignal(signal.SIGTERM)
    try:
        stop = stop_on_sigterm()
        assert not stop.is_set()
        os.kill(os.getpid(), signal.SIGTERM)
        wait_until(stop.is_set, 10)
    finally:
        signal.signal(signal.SIGTERM, before)


def test_nothing_heavy_is_imported_before_it_is_heard() -> None:
    program = "import sys, container.stopping; print({'numpy', 'cv2', 'mxnet', 'jsonschema'} & set(sys.modules))"
    command = [sys.executable, "-c", program]
    assert subprocess.run(command, cwd=PROGRAM, capture_output=True, text=True, check=True).stdout == "set()\n"
