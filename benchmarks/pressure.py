"""Servers under slow clients: `python -m benchmarks.pressure`.

This server, and the baseline on gunicorn threads and on sync workers, receive the same images from normal clients, with
and without each kind of slow client. Prints responses/s, and the median and 99th percentile of /ping. Clients, /ping,
and slow clients run in separate processes, so that none of them waits for the interpreter of another.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.support.images import make_image
from benchmarks.support.models import base_directory
from benchmarks.support.servers import SERVE, TIMEOUT, Server, flask_command, run_clients, running
from benchmarks.support.slow_clients import KINDS, keep_open
from container.environment import cpu_count

_NONE = "none"
_PING_TIMEOUT = 10.0  # seconds, after which /ping counts as lost
_PING_PAUSE = 0.02  # seconds between two of them
_START_SECONDS = 3  # until all slow clients are connected

_CPUS = {"OMP_NUM_THREADS": str(cpu_count())}
SERVERS: dict[str, tuple[list[str], dict[str, str]]] = {
    "this container": (SERVE, {}),
    "baseline threads": (flask_command("--worker-class", "gthread", "--threads", "40"), _CPUS),
    "baseline sync": (flask_command(), _CPUS),
}


def main() -> None:
    """Measure, and print a row for each server and kind of slow client."""
    parser = argparse.ArgumentParser(description="Time servers under slow clients.")
    parser.add_argument("--seconds", type=float, default=15, help="per row (%(default)s)")
    parser.add_argument("--clients", type=int, default=64, help="normal clients (%(default)s)")
    parser.add_argument("--servers", default=",".join(SERVERS), help="comma-separated (%(default)s)")
    parser.add_argument("--kinds", default=",".join([_NONE, *KINDS]), help="of slow clients (%(default)s)")
    parser.add_argument("--base", type=Path, help="directory that contains model/, instead of a random fcn/resnet-50")
    arguments = parser.parse_args()
    with base_directory(arguments.base) as base:
        for name in arguments.servers.split(","):
            command, variables = SERVERS[name]
            with running(command, base, **variables) as server:
                compare(name, server, arguments.kinds.split(","), arguments.seconds, arguments.clients)


def compare(name: str, server: Server, kinds: list[str], seconds: float, clients: int) -> None:
    """Measure one server with each kind of slow client, and print a row per kind."""
    image = make_image(120, 160)
    for _ in range(cpu_count()):
        server.request("POST", "/invocations", image)
    for kind in kinds:
        with _slow_clients(server.port, kind) as cpu_seconds:
            start = time.monotonic()
            result = measure(server, image, seconds, clients)
        share = sum(cpu_seconds) / (time.monotonic() - start + _START_SECONDS)
        print(f"{name:16} {kind:36} {result}; slow clients used {share:.0%} of a core", flush=True)


def measure(server: Server, image: bytes, seconds: float, clients: int) -> str:
    """Send requests and /ping, and return the results as text."""
    with _process(_send_images, server, image, seconds, clients) as images, _process(_ping, server, seconds) as ping:
        responses, failures = images.recv()
        pings = ping.recv()
    median, p99 = (f"{1000 * np.percentile(pings, share):.0f} ms" for share in (50, 99))
    lost = f", {pings.count(_PING_TIMEOUT)} of {len(pings)} lost" if _PING_TIMEOUT in pings else ""
    failed = f" ({failures} failed)" if failures else ""
    return f"{responses / seconds:6.2f} responses/s{failed}  /ping median {median}, p99 {p99}{lost}"


@contextlib.contextmanager
def _slow_clients(port: int, kind: str) -> Iterator[list[float]]:
    """Keep slow clients connected within the block, and then add their CPU seconds to the list."""
    cpu_seconds: list[float] = []
    if kind == _NONE:
        yield cpu_seconds
        return
    with _process(keep_open, port, KINDS[kind]) as process:
        time.sleep(_START_SECONDS)
        yield cpu_seconds
        process.send(None)
        cpu_seconds.append(process.recv())


@contextlib.contextmanager
def _process(target: Any, *arguments: Any) -> Iterator[Connection]:
    """Run a function in a child process. Its last argument is the other end of the returned connection."""
    parent_end, child_end = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=target, args=(*arguments, child_end), daemon=True)
    process.start()
    try:
        yield parent_end
        process.join(TIMEOUT)
    finally:
        process.kill()


def _send_images(server: Server, image: bytes, seconds: float, clients: int, results: Connection) -> None:
    """Send images from concurrent clients, and report the responses in time and the failures."""
    end = time.monotonic() + seconds

    def request(client: int) -> tuple[bool, bool]:
        failed = False
        try:
            server.request("POST", "/invocations", image, timeout=seconds + _PING_TIMEOUT)
        except OSError:
            failed = True
        return failed, time.monotonic() < end

    counts = run_clients(clients, seconds, request)
    results.send((counts[False, True], counts[True, True]))


def _ping(server: Server, seconds: float, results: Connection) -> None:
    """Request /ping repeatedly, and report the seconds of each response."""
    end, pings = time.monotonic() + seconds, []
    while time.monotonic() < end:
        try:
            pings.append(server.request("GET", "/ping", timeout=_PING_TIMEOUT))
        except OSError:
            pings.append(_PING_TIMEOUT)
        time.sleep(_PING_PAUSE)
    results.send(pings)


if __name__ == "__main__":
    main()
