"""SIGTERM: heard by whoever asked first, and nothing heavy is imported for it."""

from __future__ import annotations

import subprocess
import sys

from tests.conftest import PROGRAM


def test_sigterm_sets_the_event() -> None:
    """In a process of its own: a library of this one may have given signals a stack that is too small for AMX."""
    program = (
        "import os, signal; from container.training.signals import stop_on_sigterm; stop = stop_on_sigterm();"
        "before = stop.is_set(); os.kill(os.getpid(), signal.SIGTERM); print(before, stop.wait(10))"
    )
    command = [sys.executable, "-c", program]
    assert subprocess.run(command, cwd=PROGRAM, capture_output=True, text=True, check=True).stdout == "False True\n"


def test_nothing_heavy_is_imported_before_it_is_heard() -> None:
    heavy = {"numpy", "cv2", "mxnet", "jsonschema"}
    program = f"import sys, container.training.signals; print({heavy} & set(sys.modules))"
    command = [sys.executable, "-c", program]
    assert subprocess.run(command, cwd=PROGRAM, capture_output=True, text=True, check=True).stdout == "set()\n"
