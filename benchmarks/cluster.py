"""Distributed training on several hosts of one machine: `python -m benchmarks.cluster [--hosts 1 2] [--crop 64]`.

Needs root. Every host is a job process on its own core, if there are enough cores, and all hosts of a measurement share
a network namespace. Prints samples/s, the bytes per iteration and their minimum, and the efficiency that networks of 25
and 100 Gbit/s leave for iterations of 0.25, 0.5, and 1 s.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.job import cluster

WARMUP, MEASURED = 3, 10  # iterations
BATCH = 4  # images per host and iteration
GBITS, SECONDS = (25, 100), (0.25, 0.5, 1.0)
_PROGRESS = re.compile(r"#progress_notice\. epoch: 0, iterations: (\d+) .* learning_rate: ")


def network_bytes() -> int:
    """Return the bytes that the loopback interface has received."""
    for line in Path("/proc/net/dev").read_text().splitlines():
        name, _, counters = line.partition(":")
        if name.strip() == "lo":
            return int(counters.split()[0])
    raise RuntimeError("this machine has no loopback interface")


def measure(hosts: int, crop: int, backbone: str) -> tuple[float, float, int]:
    """Return samples/s, bytes per iteration, and the bytes of all gradients."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    last = WARMUP + MEASURED
    with tempfile.TemporaryDirectory() as folder:
        roots = cluster.lay_out(
            Path(folder),
            hosts,
            train=BATCH * hosts * (last + 2),
            mini_batch_size=str(BATCH * hosts),
            crop_size=str(crop),
            backbone=backbone,
            _logging_frequency="1",
        )
        processes = [cluster.start(root) for root in roots]
        cores = sorted(os.sched_getaffinity(0))
        for number, process in enumerate(processes):
            os.sched_setaffinity(process.pid, {cores[number % len(cores)]})
        progress: dict[int, tuple[float, int]] = {}
        while last not in progress:
            for iteration in _PROGRESS.findall(cluster.log(roots[0])):
                progress.setdefault(int(iteration), (time.monotonic(), network_bytes()))
            if processes[0].poll() is not None and last not in progress:
                raise RuntimeError(cluster.log(roots[0]))
            time.sleep(0.02)
        first = min(iteration for iteration in progress if iteration >= WARMUP)
        (start, before), (end, after) = progress[first], progress[last]
        for process in processes:
            assert process.wait(300) == 0
        iterations = last - first
        size = sum(array.nbytes for name, array in cluster.weights(roots[0]).items() if "running" not in name)
    return iterations * BATCH * hosts / (end - start), (after - before) / iterations, size


def print_result(hosts: int, rate: float, traffic: float, size: int) -> None:
    """Print the measurement, and the computed efficiency per network."""
    minimum = 2 * size * hosts if hosts > 1 else 0  # every host sends and receives all gradients
    print(f"{hosts} hosts: {rate:.2f} samples/s; {traffic / 1e6:.1f} MB per iteration, minimum {minimum / 1e6:.1f}")
    if hosts == 1:
        return
    sent = traffic / hosts * (hosts - 1) / hosts  # by a host, which receives as much
    for gbits in GBITS:
        seconds = sent * 8 / gbits / 1e9
        efficiency = ", ".join(f"{each / (each + seconds):.0%} of {each} s" for each in SECONDS)
        print(f"  {gbits} Gbit/s: {1000 * seconds:.0f} ms per iteration, efficiency {efficiency}")


def main() -> None:
    """Measure each number of hosts in a separate network namespace."""
    parser = argparse.ArgumentParser(description="Train on several hosts of this machine, and count their bytes.")
    parser.add_argument("--hosts", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--crop", type=int, default=64)
    parser.add_argument("--backbone", default="resnet-50")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.inside:
        print_result(arguments.hosts[0], *measure(arguments.hosts[0], arguments.crop, arguments.backbone))
        return
    for hosts in arguments.hosts:
        options = ["--hosts", str(hosts), "--crop", str(arguments.crop), "--backbone", arguments.backbone, "--inside"]
        subprocess.run(["unshare", "--net", sys.executable, "-m", "benchmarks.cluster", *options], check=True)


if __name__ == "__main__":
    main()
