"""This server compared with Flask and GluonCV on the same weights: `python -m benchmarks.serving`.

The baseline (support/flask_server.py) runs on gunicorn with a sync worker per CPU, once with and once without
OMP_NUM_THREADS. All servers receive the same images, interleaved. Prints the median and 99th percentile of the latency,
images/s, memory (proportional set size), and ratios. benchmarks/pressure.py measures slow clients.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np

from benchmarks.support.images import make_image
from benchmarks.support.measure import interleave
from benchmarks.support.models import base_directory
from benchmarks.support.servers import SERVE, Server, compile_record, flask_command, running
from container.environment import cpu_count

THIS, BASELINE, THREADS = "this container", "baseline", "baseline with OMP_NUM_THREADS"


def main() -> None:
    """Measure, and print a row for each server and number of clients."""
    parser = argparse.ArgumentParser(description="Compare this server with Flask and GluonCV.")
    parser.add_argument("--accept", default="image/png", help="or application/x-protobuf (%(default)s)")
    parser.add_argument("--size", type=int, nargs=2, default=(480, 480), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--rounds", type=int, default=3, help="rounds per server, interleaved (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="1 round, small images, 1 and 2 clients")
    arguments = parser.parse_args()
    size, rounds = ((120, 160), 1) if arguments.quick else (arguments.size, arguments.rounds)
    images = [make_image(*size, seed) for seed in range(8)]
    with base_directory() as base, contextlib.ExitStack() as stack:
        compile_record(base)
        threads = str(cpu_count())
        servers = {
            THIS: stack.enter_context(running(SERVE, base)),
            BASELINE: stack.enter_context(running(flask_command(), base)),
            THREADS: stack.enter_context(running(flask_command(), base, OMP_NUM_THREADS=threads)),
        }
        for name, server in servers.items():
            print(f"{name:30} first /ping after {server.start_seconds:.1f} s")
            for _ in range(cpu_count()):
                server.request("POST", "/invocations", images[0], arguments.accept)
        for clients in (1, 2) if arguments.quick else (1, 2, 4, 8):
            compare(servers, images, clients, rounds, arguments.accept)


def compare(servers: dict[str, Server], images: list[bytes], clients: int, rounds: int, accept: str) -> None:
    """Send all images to each server, and print the results."""
    variants = {name: partial(send_all, server, images, clients, accept) for name, server in servers.items()}
    results = interleave(variants, rounds)
    seconds = {name: sum(total for total, _ in runs) for name, runs in results.items()}
    for name, runs in results.items():
        latencies = [latency for _, each in runs for latency in each]
        print(
            f"{clients} clients  {name:30} median {statistics.median(latencies):.3f} s  "
            f"p99 {np.percentile(latencies, 99):.3f} s  {len(latencies) / seconds[name]:.2f} images/s  "
            f"{servers[name].memory() / 2**20:.0f} MB  this container: {seconds[name] / seconds[THIS]:.2f} × images/s, "
            f"{servers[THIS].memory() / servers[name].memory():.2f} × memory"
        )


def send_all(server: Server, images: list[bytes], clients: int, accept: str) -> tuple[float, list[float]]:
    """Return the total seconds, and the latency of each image."""
    with ThreadPoolExecutor(clients) as pool:
        start = time.perf_counter()
        latencies = list(pool.map(lambda image: server.request("POST", "/invocations", image, accept), images))
        return time.perf_counter() - start, latencies


if __name__ == "__main__":
    main()
