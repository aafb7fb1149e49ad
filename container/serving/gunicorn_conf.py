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
from container.serving.settings import METRICS_DIR_VARIABLE, ServeSettings

_MODELS_LOST_STATUS = 4

_settings = ServeSettings.read()
_metrics_dirs: list[str] = []  # at most one


def listen_addresses(port: int) -> list[str]:
    """Return the addresses for IPv4 and IPv6, or only for IPv4 if the host has no IPv6."""
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

timeout = 240  # seconds without a heartbeat until a worker is replaced; loading GPU libraries can block it
keepalive = STALL_SECONDS  # of an idle connection, also before its first request
graceful_timeout = 25  # SageMaker AI sends SIGKILL 30 s after SIGTERM

control_socket_disable = True
if os.access("/dev/shm", os.W_OK):
    worker_tmp_dir = "/dev/shm"  # the heartbeat must not wait for a busy disk


def on_starting(server: Any) -> None:
    """Create the directory in which the workers share their metrics."""
    if _settings.metrics and _settings.workers > 1:
        _metrics_dirs.append(tempfile.mkdtemp(prefix="metrics-"))
        os.environ[METRICS_DIR_VARIABLE] = _metrics_dirs[0]  # for the workers


def on_exit(server: Any) -> None:
    """Remove the directory."""
    for directory in _metrics_dirs:
        shutil.rmtree(directory, ignore_errors=True)


def pre_fork(server: Any, worker: Any) -> None:
    """Assign each worker the first free number, which selects its GPU."""
    used = {other.number for other in server.WORKERS.values()}
    worker.number = next(number for number in range(len(used) + 1) if number not in used)


def post_fork(server: Any, worker: Any) -> None:
    """Make only its GPU visible to the worker, before MXNet is imported."""
    if _settings.gpus and _settings.workers > 1:
        os.environ["CUDA_VISIBLE_DEVICES"] = _settings.gpus[worker.number % len(_settings.gpus)]


def child_exit(server: Any, worker: Any) -> None:
    """Remove a worker that exited from the metrics, and stop a multi-model server.

    A new worker would have no models but a healthy /ping: SageMaker AI loads models again only into a new container.
    """
    for directory in _metrics_dirs:
        from prometheus_client import multiprocess

        multiprocess.mark_process_dead(worker.pid, directory)  # type: ignore[no-untyped-call]
    if _settings.multi_model and server.LISTENERS:  # empty if gunicorn is stopping
        raise HaltServer("the process with the loaded models exited", _MODELS_LOST_STATUS)
