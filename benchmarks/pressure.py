"""Servers under slow peers: `python -m benchmarks.pressure`.

Ours, the plain peer on gunicorn's stock threads, and on sync workers, are sent the same images by a few honest clients,
alone and beside each kind of slow peer. Printed are answers per second, and of /ping the p99 in milliseconds.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from benchmarks.serving import PATIENCE, Server, make_images, make_model
from benchmarks.slow_peers import KINDS, slow_peers
from container.environment import cpu_count

_PING_SECONDS = 10.0  # after which a /ping counts as lost


def main() -> None:
    """Measure, and print a row for each server and kind of peer."""
    parser = argparse.ArgumentParser(description="Time servers under slow peers.")
    parser.add_argument("--seconds", type=float, default=15, help="for each row (%(default)s)")
    parser.add_argument("--clients", type=int, default=8, help="honest ones (%(default)s)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as root, tempfile.TemporaryDirectory() as proto:
        make_model(Path(root), Path(proto))
        compare(Path(root), Path(proto), arguments.seconds, arguments.clients)


def compare(root: Path, proto: Path, seconds: float, clients: int) -> None:
    """Start each server alone, and measure it with and without slow peers."""
    gunicorn = [sys.executable, "-m", "gunicorn", "--bind", "127.0.0.1:PORT", "--timeout", str(PATIENCE)]
    gunicorn += ["--no-control-socket", "--workers", str(cpu_count())]
    app, cores = "benchmarks.peers.plain_server:create_app()", {"OMP_NUM_THREADS": str(cpu_count())}
    for name, command, variables in (
        ("ours", [sys.executable, "serve"], {}),
        ("peer, gthread", [*gunicorn, "--worker-class", "gthread", "--threads", "40", app], cores),
        ("peer, sync", [*gunicorn, app], cores),
    ):
        server = Server(command, root, proto, **variables)
        try:
            image = make_images(1, 120, 160)[0]
            for _ in range(cpu_count()):
                server.ask("POST", "/invocations", image)
            for kind, peers in {"no one": (0, b"", b""), **KINDS}.items():
                with slow_peers(server.port, *peers):
                    found = measure(server, image, seconds, clients)
                print(f"{name:14} beside {peers[0]:4} {kind:34} {found}", flush=True)
        finally:
            server.process.terminate()
            server.process.wait()


def measure(server: Server, image: bytes, seconds: float, clients: int) -> str:
    """Ask for so many seconds; says what came of it."""
    end, pings = time.monotonic() + seconds, []
    answered, lock = [0], threading.Lock()

    def keep_asking(_: int) -> None:
        while time.monotonic() < end:
            with contextlib.suppress(OSError):
                server.ask("POST", "/invocations", image, timeout=seconds)
                with lock:
                    answered[0] += 1

    with ThreadPoolExecutor(clients) as pool:
        asking = [pool.submit(keep_asking, number) for number in range(clients)]
        while time.monotonic() < end:
            try:
                pings.append(server.ask("GET", "/ping", timeout=_PING_SECONDS))
            except OSError:
                pings.append(_PING_SECONDS)
            threading.Event().wait(0.05)
        for one in asking:
            one.result()
    p99 = f"{1000 * np.percentile(pings, 99):.0f} ms" if max(pings) < _PING_SECONDS else "lost"
    return f"{answered[0] / seconds:6.2f} answers/s  /ping p99 {p99}"


if __name__ == "__main__":
    main()
