"""Servers under slow peers: `python -m benchmarks.pressure`.

Ours, the plain peer on gunicorn's stock threads, and on sync workers, are sent the same images by honest clients, alone
and beside each kind of slow peer. Printed are answers per second, and of /ping the median and p99 in milliseconds.
Clients, /ping and slow peers are processes of their own: none of them is timed while another one has the interpreter.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import sys
import threading
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.serving import PATIENCE, Server, a_model, make_images
from benchmarks.slow_peers import KINDS, keep_open
from container.environment import cpu_count

_PING_SECONDS = 10.0  # after which a /ping counts as lost
_PAUSE = 0.02  # between two of them
_SETTLE_SECONDS = 3  # from the first slow peer until all are there


def main() -> None:
    """Measure, and print a row for each server and kind of peer."""
    parser = argparse.ArgumentParser(description="Time servers under slow peers.")
    parser.add_argument("--seconds", type=float, default=15, help="for each row (%(default)s)")
    parser.add_argument("--clients", type=int, default=64, help="honest ones (%(default)s)")
    parser.add_argument("--servers", default=",".join(_commands()), help="which (%(default)s)")
    parser.add_argument("--kinds", default=",".join(["no one", *KINDS]), help="of slow peers (%(default)s)")
    parser.add_argument("--model", type=Path, help="a model directory's parent, to measure no untrained FCN")
    arguments = parser.parse_args()
    with a_model(arguments.model) as (root, proto):
        for name in arguments.servers.split(","):
            compare(name, root, proto, arguments.kinds.split(","), arguments.seconds, arguments.clients)


def compare(name: str, root: Path, proto: Path, kinds: list[str], seconds: float, clients: int) -> None:
    """Start one server alone, and measure it with and without slow peers."""
    command, variables = _commands()[name]
    server = Server(command, root, proto, **variables)
    try:
        image = make_images(1, 120, 160)[0]
        for _ in range(cpu_count()):
            server.ask("POST", "/invocations", image)
        for kind in kinds:
            with _beside(server.port, kind) as cost:
                start = time.monotonic()
                found = measure(server, image, seconds, clients)
            share = 100 * cost[0] / (time.monotonic() - start + _SETTLE_SECONDS) if cost else 0
            print(f"{name:14} beside {kind:34} {found}; the peers took {share:.0f} % of a core", flush=True)
    finally:
        server.process.terminate()
        server.process.wait()


def measure(server: Server, image: bytes, seconds: float, clients: int) -> str:
    """Ask for so many seconds; says what came of it."""
    with _process(_keep_asking, server, image, seconds, clients) as asking, _process(_ping, server, seconds) as pinging:
        answered, refused = asking.recv()
        pings = pinging.recv()
    median, p99 = (f"{1000 * np.percentile(pings, share):.0f} ms" for share in (50, 99))
    lost = f", {pings.count(_PING_SECONDS)} of {len(pings)} lost" if _PING_SECONDS in pings else ""
    failed = f" ({refused} not answered)" if refused else ""
    return f"{answered / seconds:6.2f} answers/s{failed}  /ping median {median}, p99 {p99}{lost}"


def _commands() -> dict[str, tuple[list[str], dict[str, str]]]:
    gunicorn = [sys.executable, "-m", "gunicorn", "--bind", "127.0.0.1:PORT", "--timeout", str(PATIENCE)]
    gunicorn += ["--no-control-socket", "--workers", str(cpu_count())]
    app, cores = "benchmarks.peers.plain_server:create_app()", {"OMP_NUM_THREADS": str(cpu_count())}
    return {
        "ours": ([sys.executable, "serve"], {}),
        "peer gthread": ([*gunicorn, "--worker-class", "gthread", "--threads", "40", app], cores),
        "peer sync": ([*gunicorn, app], cores),
    }


@contextlib.contextmanager
def _beside(port: int, kind: str) -> Iterator[list[float]]:
    """Have slow peers of that kind within the block; gives a list to which it adds the seconds of a core they took."""
    cost: list[float] = []
    if kind == "no one":
        yield cost
        return
    with _process(keep_open, port, KINDS[kind]) as peers:
        time.sleep(_SETTLE_SECONDS)
        yield cost
        peers.send(None)
        cost.append(peers.recv())


@contextlib.contextmanager
def _process(target: Any, *arguments: Any) -> Iterator[Connection]:
    """Run a function in a process, with the other end of the connection as its last argument."""
    mine, its = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=target, args=(*arguments, its), daemon=True)
    process.start()
    try:
        yield mine
        process.join(PATIENCE)
    finally:
        process.kill()


def _keep_asking(server: Server, image: bytes, seconds: float, clients: int, told: Connection) -> None:
    """Send images from so many clients at once; tells how many were answered in time, and how many refused or lost."""
    end, lock, counts = time.monotonic() + seconds, threading.Lock(), [0, 0]

    def keep_asking() -> None:
        while time.monotonic() < end:
            failed = False
            try:
                server.ask("POST", "/invocations", image, timeout=seconds + _PING_SECONDS)
            except OSError:
                failed = True
            with lock:
                counts[failed] += time.monotonic() < end

    threads = [threading.Thread(target=keep_asking) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    told.send(tuple(counts))


def _ping(server: Server, seconds: float, told: Connection) -> None:
    """Ask for /ping again and again; tells the seconds that each took."""
    end, pings = time.monotonic() + seconds, []
    while time.monotonic() < end:
        try:
            pings.append(server.ask("GET", "/ping", timeout=_PING_SECONDS))
        except OSError:
            pings.append(_PING_SECONDS)
        time.sleep(_PAUSE)
    told.send(pings)


if __name__ == "__main__":
    main()
