"""The gunicorn configuration."""

from __future__ import annotations

import os
import resource
import shutil
import socket
import tempfile
from typing import Any

from gunicorn.errors import HaltServer  # type: ignore[import-untyped]

from container.serving.requests.bodies import STALL_SECONDS
from container.serving.settings import ServeSettings

_METRICS_DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"  # prometheus-client's own name
_MODELS_LOST = 4  # exit status

_settings = ServeSettings.read()


def listen_addresses(port: int) -> list[str]:
    """Return gunicorn's addresses for IPv4 and IPv6, or for IPv4 alone where the host has no IPv6."""
    try:
        with socket.socket(socket.AF_INET6) as trial:
            trial.bind(("::", 0))
            if trial.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY):  # the sysctl net.ipv6.bindv6only
                return [f"0.0.0.0:{port}", f"[::]:{port}"]
            return [f"[::]:{port}"]
    except OSError:
        return [f"0.0.0.0:{port}"]


bind = listen_addresses(_settings.port)
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
        os.environ[_METRICS_DIRECTORY] = tempfile.mkdtemp(prefix="metrics-")


def on_exit(server: Any) -> None:
    """Remove it."""
    if directory := os.environ.get(_METRICS_DIRECTORY):
        shutil.rmtree(directory, ignore_errors=True)


def pre_fork(server: Any, worker: Any) -> None:
    """Give each worker a number of its own, for its GPU; a new worker takes one that is free."""
    taken = {other.number for other in server.WORKERS.values()}
    worker.number = next(number for number in range(len(taken) + 1) if number not in taken)


def post_fork(server: Any, worker: Any) -> None:
    """Show the worker its GPU only; must come before MXNet is imported."""
    if _settings.gpus and _settings.workers > 1:
        os.environ["CUDA_VISIBLE_DEVICES"] = _settings.gpus[worker.number % len(_settings.gpus)]


def child_exit(server: Any, worker: Any) -> None:
    """Take a worker that has died out of the totals; end a multi-model server, whose models were in that process.

    Its successor would have no models and a good /ping: SageMaker loads models again only into a new container.
    """
    if os.environ.get(_METRICS_DIRECTORY):
        from prometheus_client import multiprocess

        multiprocess.mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]
    if _settings.multi_model and server.LISTENERS:  # gunicorn closes them first when it is told to end
        raise HaltServer("the process with the loaded models died", _MODELS_LOST)
