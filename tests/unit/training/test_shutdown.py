"""A job that was asked to stop ends in time, though its main thread waits for something that nothing interrupts."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.conftest import PROGRAM

# a mutex that is locked twice holds a thread for ever, within C, where Python runs no handler of a signal
BEGINNING = """
import ctypes, logging, os, signal, threading
from container.training.shutdown import Shutdown
from container.training.signals import stop_on_sigterm
logging.basicConfig(format="%(message)s")
stop = stop_on_sigterm()
shutdown = Shutdown(stop, 0.2)
shutdown.watch()
def wait_in_c():
    mutex, lock = ctypes.create_string_buffer(256), ctypes.CDLL(None).pthread_mutex_lock
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
    lock(mutex)
    lock(mutex)
"""


def run(program: str) -> tuple[int, str, str]:
    command = [sys.executable, "-c", BEGINNING + program]
    done = subprocess.run(command, cwd=PROGRAM, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout, done.stderr


def test_what_is_on_the_disk_is_made_whole_and_the_exit_code_is_0() -> None:
    code, out, err = run("shutdown.complete_model = lambda: print('concluded')\nwait_in_c()")
    assert (code, out) == (0, "concluded\n"), err
    assert "the job ends without waiting for it, with what is on the disk" in err


def test_a_file_that_is_being_written_is_waited_for() -> None:
    """The writer lets go only once the watcher waits for it: it has warned by then."""
    program = """
shutdown.complete_model = lambda: print('concluded')
warned = threading.Event()
class Warned(logging.Handler):
    def emit(self, record):
        warned.set()
logging.getLogger("container.training.shutdown").addHandler(Warned())
def write():
    with shutdown.writing:
        begun.set()
        warned.wait()
        print('written', flush=True)
begun = threading.Event()
threading.Thread(target=write).start()
begun.wait()
wait_in_c()
"""
    assert run(program)[:2] == (0, "written\nconcluded\n")


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("shutdown.complete_model = lambda: print(1 / 0)", 1),
        ("shutdown.code = 1\nshutdown.complete_model = lambda: os._exit(7)", 1),  # a failure stays one
        ("shutdown.code = 0\nshutdown.complete_model = lambda: os._exit(7)", 0),  # what is whole is left alone
    ],
)
def test_the_exit_code_is_the_jobs(program: str, expected: int) -> None:
    assert run(f"{program}\nwait_in_c()")[0] == expected
