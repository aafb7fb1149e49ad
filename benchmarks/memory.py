"""The memory budget of a server compared with the memory of its process, in cgroups: `python -m benchmarks.memory`.

Needs root. Each row is a server in its own memory cgroup. 8 clients request masks, classes, and probabilities of images
of many sizes, from one model or from a multi-model endpoint. Prints the statuses, the maximum of the memory budget in
use, the peak of the processes (VmHWM), and how often the cgroup reached its limit.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import re
from collections import Counter
from collections.abc import Hashable, Iterator
from pathlib import Path

from benchmarks.support.images import make_image
from benchmarks.support.models import base_directory
from benchmarks.support.servers import SERVE, Server, format_counts, run_clients, running

CLIENTS = 8
SIZES = [(64, 64), (120, 160), (480, 480), (480, 480), (900, 1200), (1200, 1600), (2600, 2500)]
ACCEPTS = ["image/png", "image/png", "application/x-npy; top_k=1", "application/x-protobuf"]
_CGROUPS = Path("/sys/fs/cgroup")
_SHARE = 19 / 20  # of the container memory, which the budget contains


def main() -> None:
    """Measure, and print a row for each cgroup and kind of endpoint."""
    parser = argparse.ArgumentParser(description="Compare the memory budget of a server with its memory.")
    parser.add_argument("--seconds", type=float, default=35, help="per row (%(default)s)")
    parser.add_argument("--gigabytes", type=int, nargs="+", default=[2, 4], help="of each cgroup (%(default)s)")
    parser.add_argument("--models", type=int, nargs="+", default=[1, 12], help="of each server (%(default)s)")
    parser.add_argument("--base", type=Path, help="directory that contains model/, instead of a random fcn/resnet-50")
    arguments = parser.parse_args()
    if os.geteuid():
        print("nothing was measured: only root can create memory cgroups")
        return
    with base_directory(arguments.base) as base:
        for models in arguments.models:
            for gigabytes in arguments.gigabytes:
                print(measure(base, models, gigabytes * 2**30, arguments.seconds), flush=True)


def measure(base: Path, models: int, limit: int, seconds: float) -> str:
    """Run one server in a cgroup under load, and return the results as text."""
    variables = {"SERVE_METRICS": "1"} | ({"SAGEMAKER_MULTI_MODEL": "true"} if models > 1 else {})
    with (
        _cgroup(limit) as (cgroup, enter),
        running(["unshare", "-m", "sh", "-c", enter, "sh", *SERVE], base, **variables) as server,
    ):
        statuses = _send_images(server, _load(server, base, models), seconds)
        metrics = _metrics(server)
        budget = int(_SHARE * limit) - metrics["total"] + metrics["taken"]
        used = _peak(server.process.pid)
        failures = (cgroup / _name(cgroup, "memory.failcnt", "memory.events")).read_text().split()
    return (
        f"{limit >> 30} GB, {models} models: {format_counts(statuses)}; budget {budget >> 20} MB, used {used >> 20} MB "
        f"({used / budget:.2f}); limit reached: {' '.join(failures)}"
    )


@contextlib.contextmanager
def _cgroup(limit: int) -> Iterator[tuple[Path, str]]:
    """Create a cgroup, and return it with a shell command that runs its arguments in it, as in a container."""
    controllers = _CGROUPS / "memory" if (_CGROUPS / "memory").is_dir() else _CGROUPS
    cgroup = controllers / "benchmarks.memory"
    cgroup.mkdir(exist_ok=True)
    (cgroup / _name(cgroup, "memory.limit_in_bytes", "memory.max")).write_text(str(limit))
    try:
        yield cgroup, f'echo $$ > {cgroup}/cgroup.procs && mount --bind {cgroup} {controllers} && exec "$@"'
    finally:
        cgroup.rmdir()


def _name(cgroup: Path, version_1: str, version_2: str) -> str:
    """Return the name of a file in this version of cgroups."""
    return version_1 if (cgroup / version_1).exists() else version_2


def _load(server: Server, base: Path, models: int) -> list[str]:
    """Load the models of a multi-model endpoint, and return the paths for requests."""
    if models == 1:
        return ["/invocations"]
    for number in range(models):
        body = json.dumps({"model_name": f"m{number}", "url": str(base / "model")})
        server.request("POST", "/models", body.encode(), accept="*/*")
    return [f"/models/m{number}/invoke" for number in range(models)]


def _send_images(server: Server, paths: list[str], seconds: float) -> Counter[Hashable]:
    images = {size: make_image(*size) for size in SIZES}
    generators = [random.Random(client) for client in range(CLIENTS)]

    def request(client: int) -> Hashable:
        rng = generators[client]
        try:
            path, image = rng.choice(paths), images[rng.choice(SIZES)]
            return server.send("POST", path, image, rng.choice(ACCEPTS))[0]
        except OSError:
            return "broken"

    return run_clients(CLIENTS, seconds, request)


def _metrics(server: Server) -> dict[str, int]:
    """Return the total memory budget, and its maximum in use."""
    text = server.send("GET", "/metrics", accept="*/*")[1].decode()
    return {
        name: int(float(re.findall(rf"^\w*{metric}(?:{{.*}})? (\S+)$", text, re.MULTILINE)[0]))
        for name, metric in {"total": "memory_total_bytes", "taken": "memory_most_taken_bytes"}.items()
    }


def _peak(parent: int) -> int:
    """Return the peak of the worker process, plus the private memory of its parent, in bytes."""
    (worker,) = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    rollup = Path(f"/proc/{parent}/smaps_rollup").read_text()
    private = sum(map(int, re.findall(r"^Private_(?:Clean|Dirty): +(\d+)", rollup, re.MULTILINE)))
    peak = int(re.findall(r"VmHWM:\s+(\d+)", Path(f"/proc/{worker}/status").read_text())[0])
    return (private + peak) * 1024


if __name__ == "__main__":
    main()
