"""Trains on 1, 2, … hosts of this machine: `python -m benchmarks.cluster [--hosts 1 2] [--crop 64] [--backbone NAME]`.

Every host is a job's process with a core of its own (where there are enough) in one network namespace, so that all
bytes on its loopback are theirs. Prints samples/s, the bytes on the wire per step beside the least that can be, and
what 25 and 100 Gbit/s would leave of the speed of steps that take 0.25, 0.5 and 1 s. Needs root, for the namespace.
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

WARM, MEASURED = 3, 10  # steps
BATCH = 4  # images per host and step
GBITS, STEPS = (25, 100), (0.25, 0.5, 1.0)
NOTICE = re.compile(r"#progress_notice\. epoch: 0, iterations: (\d+) .* learning_rate: ")


def wire_bytes() -> int:
    """What has gone over the loopback so far, each byte once."""
    for line in Path("/proc/net/dev").read_text().splitlines():
        name, _, counters = line.partition(":")
        if name.strip() == "lo":
            return int(counters.split()[0])
    raise RuntimeError("there is no loopback")


def measure(count: int, crop: int, backbone: str) -> tuple[float, float, int]:
    """Return samples/s, bytes per step over the loopback, and the bytes of all gradients."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    with tempfile.TemporaryDirectory() as folder:
        roots = cluster.lay_out(
            Path(folder),
            count,
            train=BATCH * count * (WARM + MEASURED + 2),
            mini_batch_size=str(BATCH * count),
            crop_size=str(crop),
            backbone=backbone,
            _logging_frequency="1",
        )
        processes = [cluster.start(root) for root in roots]
        cores = sorted(os.sched_getaffinity(0))
        for number, process in enumerate(processes):
            os.sched_setaffinity(process.pid, {cores[number % len(cores)]})
        seen: dict[int, tuple[float, int]] = {}
        while WARM + MEASURED not in seen:
            for step in NOTICE.findall(cluster.log(roots[0])):
                seen.setdefault(int(step), (time.monotonic(), wire_bytes()))
            if processes[0].poll() is not None and WARM + MEASURED not in seen:
                raise RuntimeError(cluster.log(roots[0]))
            time.sleep(0.02)
        first = min(step for step in seen if step >= WARM)
        (start, before), (end, after) = seen[first], seen[WARM + MEASURED]
        for process in processes:
            assert process.wait(300) == 0
        steps = WARM + MEASURED - first
        size = sum(array.nbytes for name, array in cluster.weights(roots[0]).items() if "running" not in name)
    return steps * BATCH * count / (end - start), (after - before) / steps, size


def tell(count: int, speed: float, wire: float, size: int) -> None:
    least = 2 * size * count if count > 1 else 0  # every host sends and gets all gradients, its own server's included
    print(f"{count} hosts: {speed:.2f} samples/s; {wire / 1e6:.1f} MB a step, least {least / 1e6:.1f}")
    if count == 1:
        return
    crossing = wire / count * (count - 1) / count  # what a host sends; it gets as much
    for gbits in GBITS:
        seconds = crossing * 8 / gbits / 1e9
        left = ", ".join(f"{step / (step + seconds):.0%} of {step} s" for step in STEPS)
        print(f"  {gbits} Gbit/s: {1000 * seconds:.0f} ms a step, which leaves {left}")


def main() -> None:
    """Measure each number of hosts in a network namespace of its own."""
    parser = argparse.ArgumentParser(description="Train on several hosts of this machine, and count what they send.")
    parser.add_argument("--hosts", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--crop", type=int, default=64)
    parser.add_argument("--backbone", default="resnet-50")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.inside:
        tell(arguments.hosts[0], *measure(arguments.hosts[0], arguments.crop, arguments.backbone))
        return
    for count in arguments.hosts:
        own = ["--hosts", str(count), "--crop", str(arguments.crop), "--backbone", arguments.backbone, "--inside"]
        subprocess.run(["unshare", "--net", sys.executable, "-m", "benchmarks.cluster", *own], check=True)


if __name__ == "__main__":
    main()
