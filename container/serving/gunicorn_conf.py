"""gunicorn's configuration: threads that share one model, which a worker loads after the fork."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import tempfile
from types import FrameType
from typing import Any

from container.serving import metrics
from container.serving.bodies import STALL_SECONDS
from container.serving.settings import ServeSettings

_DRAIN_SECONDS = 20  # of the 25 below: what still waits then is told to try elsewhere

_settings = ServeSettings.read()

bind = f"0.0.0.0:{_settings.port}"
loglevel = _settings.log_level
worker_class = "container.serving.worker.Worker"
workers = _settings.workers
worker_connections = max(64, min(8192, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 256))

timeout = 240  # a worker is replaced when its main loop is silent for so long; loading a GPU's libraries can hold it up
keepalive = STALL_SECONDS  # between two requests of a connection, and before its first
graceful_timeout = 25  # the platform kills 30 seconds after SIGTERM

control_socket_disable = True
if os.access("/dev/shm", os.W_OK):
    worker_tmp_dir = "/dev/shm"  # the heartbeat must not wait for a busy disk


def on_starting(server: Any) -> None:
    """Make the directory in which the workers share their totals."""
    if _settings.metrics and _settings.workers > 1:
        os.environ[metrics.DIRECTORY_VARIABLE] = tempfile.mkdtemp(prefix="metrics-")


def on_exit(server: Any) -> None:
    """Remove it."""
    if directory := os.environ.get(metrics.DIRECTORY_VARIABLE):
        shutil.rmtree(directory, ignore_errors=True)


def pre_fork(server: Any, worker: Any) -> None:
    """Give each worker a number, its GPU's; a successor takes the one that its predecessor leaves."""
    taken = {other.number for other in server.WORKERS.values()}
    worker.take_number(next(number for number in range(len(taken) + 1) if number not in taken))


def post_fork(server: Any, worker: Any) -> None:
    """Show the worker its GPU only; must come before MXNet is imported."""
    if _settings.engine == "mxnet" and _settings.workers > 1:
        os.environ["CUDA_VISIBLE_DEVICES"] = str(worker.number)


def post_worker_init(worker: Any) -> None:
    """On SIGTERM, refuse those who would still wait when gunicorn's patience ends: no connection just breaks."""
    gate, finish = worker.wsgi.extensions["gate"], signal.getsignal(signal.SIGTERM)

    def drain(number: int, frame: FrameType | None) -> None:
        gate.close_in(_DRAIN_SECONDS)
        finish(number, frame)  # type: ignore[operator, misc]

    signal.signal(signal.SIGTERM, drain)
    signal.siginterrupt(signal.SIGTERM, False)
