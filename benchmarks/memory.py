"""What the server's ledger says beside what its processes hold, in memory cgroups: `python -m benchmarks.memory`.

Each row is a server of its own in a cgroup, so this needs root: eight clients send images of mixed sizes for a while
and ask for masks, classes and probabilities, of one model or of many that share the memory. Printed are the answers by
status, what the ledger said at most, what the processes held at most (VmHWM, and what is the parent's alone), and how
often the cgroup met its limit.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import random
import re
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from benchmarks.serving import Server, a_model, make_images

CLIENTS = 8
SIZES = [(64, 64), (120, 160), (480, 480), (480, 480), (900, 1200), (1200, 1600), (2600, 2500)]
ACCEPTS = ["image/png", "image/png", "application/x-npy; top_k=1", "application/x-protobuf"]
_CGROUPS = Path("/sys/fs/cgroup")
_SHARE = 19 / 20  # of the memory that the server promises


def main() -> None:
    """Measure, and print a row for each cgroup and kind of endpoint."""
    parser = argparse.ArgumentParser(description="Compare the server's ledger with what its processes hold.")
    parser.add_argument("--seconds", type=float, default=35, help="for each row (%(default)s)")
    parser.add_argument("--gigabytes", type=int, nargs="+", default=[2, 4], help="of each cgroup (%(default)s)")
    parser.add_argument("--models", type=int, nargs="+", default=[1, 12], help="of each server (%(default)s)")
    parser.add_argument("--model", type=Path, help="a model directory's parent, to measure no untrained FCN")
    arguments = parser.parse_args()
    if os.geteuid():
        print("nothing is measured: only root may make memory cgroups")
        return
    with a_model(arguments.model) as (root, _):
        for count in arguments.models:
            for gigabytes in arguments.gigabytes:
                print(measure(root, count, gigabytes * 2**30, arguments.seconds), flush=True)


def measure(root: Path, models: int, limit: int, seconds: float) -> str:
    """Put one server under load in a cgroup of its own; says what came of it."""
    variables = {"SERVE_METRICS": "1"} | ({"SAGEMAKER_MULTI_MODEL": "true"} if models > 1 else {})
    with _cgroup(limit) as (cgroup, enter), tempfile.TemporaryDirectory() as proto:
        command = ["unshare", "-m", "sh", "-c", enter, "sh", sys.executable, "serve"]
        server = Server(command, root, Path(proto), **variables)
        try:
            paths = _load(server, root, models)
            statuses, most = _ask_for(server, paths, seconds)
            said, held = int(_SHARE * limit) - most["total"] + most["taken"], _peak(server.process.pid)
            failures = (cgroup / _name(cgroup, "memory.failcnt", "memory.events")).read_text().split()
        finally:
            server.process.terminate()
            server.process.wait()
    counts = ", ".join(f"{status}: {count}" for status, count in sorted(statuses.items(), key=str))
    return (
        f"{limit >> 30} GB, {models} models: {counts}; the ledger said {said >> 20} MB, the processes held "
        f"{held >> 20} MB, {held / said:.2f} of it; limit met: {' '.join(failures)}"
    )


@contextlib.contextmanager
def _cgroup(limit: int) -> Iterator[tuple[Path, str]]:
    """Make a cgroup; gives its directory, and a shell's line that runs what follows in it as in a container."""
    controllers = _CGROUPS / "memory" if (_CGROUPS / "memory").is_dir() else _CGROUPS
    cgroup = controllers / "benchmarks.memory"
    cgroup.mkdir(exist_ok=True)
    (cgroup / _name(cgroup, "memory.limit_in_bytes", "memory.max")).write_text(str(limit))
    enter = f'echo $$ > {cgroup}/cgroup.procs && mount --bind {cgroup} {controllers} && exec "$@"'
    try:
        yield cgroup, enter
    finally:
        cgroup.rmdir()


def _name(cgroup: Path, first: str, second: str) -> str:
    """Return a file's name in version 1 or 2 of cgroups."""
    return first if (cgroup / first).exists() else second


def _load(server: Server, root: Path, models: int) -> list[str]:
    """Load the models of a multi-model endpoint; returns the paths to ask."""
    if models == 1:
        return ["/invocations"]
    names = [f"m{number}" for number in range(models)]
    for name in names:
        body = json.dumps({"model_name": name, "url": str(root / "model")}).encode()
        if (status := _post(server, "/models", body, "")) != 200:
            raise SystemExit(f"POST /models answered {status}")
    return [f"/models/{name}/invoke" for name in names]


def _post(server: Server, path: str, body: bytes, accept: str) -> int | str:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=300)) as connection:
        try:
            connection.request("POST", path, body, {"Content-Type": "image/jpeg", "Accept": accept})
            response = connection.getresponse()
            response.read()
        except (OSError, http.client.HTTPException):
            return "broken"
        return response.status


def _ask_for(server: Server, paths: list[str], seconds: float) -> tuple[Counter[int | str], dict[str, int]]:
    """Let clients ask for so many seconds; returns statuses, and the ledger's `total` and most `taken` at once."""
    images = {size: make_images(1, *size)[0] for size in SIZES}
    statuses: Counter[int | str] = Counter()
    end, lock = time.monotonic() + seconds, threading.Lock()

    def keep_asking(number: int) -> None:
        rng = random.Random(number)
        while time.monotonic() < end:
            status = _post(server, rng.choice(paths), images[rng.choice(SIZES)], rng.choice(ACCEPTS))
            with lock:
                statuses[status] += 1

    threads = [threading.Thread(target=keep_asking, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port)) as connection:
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
    figures = {
        name: int(float(re.findall(rf"^\w*{metric}(?:{{.*}})? (\S+)$", text, re.MULTILINE)[0]))
        for name, metric in {"total": "memory_total_bytes", "taken": "memory_most_taken_bytes"}.items()
    }
    return statuses, figures


def _peak(parent: int) -> int:
    """Return the bytes that gunicorn's one worker has held at most, and those that its parent alone holds."""
    (worker,) = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    rollup = Path(f"/proc/{parent}/smaps_rollup").read_text()
    private = sum(map(int, re.findall(r"^Private_(?:Clean|Dirty): +(\d+)", rollup, re.MULTILINE)))
    most = int(re.findall(r"VmHWM:\s+(\d+)", Path(f"/proc/{worker}/status").read_text())[0])
    return (private + most) * 1024


if __name__ == "__main__":
    main()
