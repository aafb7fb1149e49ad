"""A server under everything at once, for a while: `make soak` (SOAK_SECONDS=1200, SOAK_SEED=0).

A seeded mix of images of all sizes, answers of all forms, hostile bodies, clients that leave, slow readers and peers,
while workers are killed and, as root, the directory for temporary files is full and the disk of two models slow.
First an ordinary endpoint with two workers, then a multi-model endpoint. Printed are the outcomes by kind, latencies,
times in the queue, memory and descriptors after a quarter of the time and at the end; the exit status is 1 when
anything but 200, 400, 413 and 503 came back, or memory or descriptors have grown.
"""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import json
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import requests

from benchmarks.support.slow_clients import KINDS, SlowClients, keep_open
from container.mx.export import export_onnx
from tests.conftest import wait_until
from tests.fuzz.bodies import bodies
from tests.job.server import PATIENCE, Server, children, noise, write_model
from tests.soak.faults import full_directory, on_slow_disk

SECONDS = float(os.environ.get("SOAK_SECONDS", "1200"))
SEED = int(os.environ.get("SOAK_SEED", "0"))
CLIENTS, MODELS, SLOW_MODELS = 8, 16, 2
KILL_SECONDS = min(60.0, SECONDS / 10)
SIZES = [(8, 8), (64, 64), (240, 320), (480, 480), (480, 480), (900, 1200)]
ACCEPTS = ["image/png", "image/png", "application/json", "application/x-npy; top_k=1", "application/x-protobuf"]
EXPECTED = {200, 400, 413, 503, "left", "broken"}  # broken: whose worker was killed
GROWTH = 1.25


class Soak:
    """What the clients of one server have seen."""

    def __init__(self, server: Server, paths: list[str]) -> None:
        self.server = server
        self.paths = paths
        self.outcomes: Counter[tuple[str, object]] = Counter()
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self._lock = threading.Lock()
        self._bodies = list(bodies(200, SEED))

    def client(self, number: int, end: float) -> None:
        """Ask until the end."""
        rng = random.Random(f"{SEED} {number}")
        while time.monotonic() < end:
            kind = rng.choices(["image", "hostile", "leaves", "reads slowly"], [80, 10, 5, 5])[0]
            start = time.monotonic()
            outcome = getattr(self, f"_{kind.replace(' ', '_')}")(rng, rng.choice(self.paths))
            with self._lock:
                self.outcomes[kind, outcome] += 1
                if outcome == 200:
                    self.seconds[kind].append(time.monotonic() - start)

    def _image(self, rng: random.Random, path: str) -> object:
        return self._post(path, noise(*rng.choice(SIZES)), rng.choice(ACCEPTS))

    def _hostile(self, rng: random.Random, path: str) -> object:
        return self._post(path, rng.choice(self._bodies), "image/png")

    def _post(self, path: str, body: bytes, accept: str) -> object:
        headers = {"Content-Type": "image/png", "Accept": accept}
        try:
            return requests.post(self.server.url + path, body, headers=headers, timeout=PATIENCE).status_code
        except requests.RequestException:
            return "broken"

    def _leaves(self, rng: random.Random, path: str) -> object:
        with contextlib.suppress(OSError), self._connection() as connection:
            connection.request("POST", path, noise(480, 480), {"Content-Type": "image/png"})
            threading.Event().wait(rng.random())
        return "left"

    def _reads_slowly(self, rng: random.Random, path: str) -> object:
        headers = {"Content-Type": "image/png", "Accept": "application/x-npy"}
        try:
            with self._connection() as connection:
                connection.request("POST", path, noise(480, 480), headers)
                response = connection.getresponse()
                while response.read(2**16):
                    threading.Event().wait(0.02)
                return response.status
        except (OSError, http.client.HTTPException):
            return "broken"

    @contextlib.contextmanager
    def _connection(self) -> Iterator[http.client.HTTPConnection]:
        with contextlib.closing(http.client.HTTPConnection(self.server.url[7:], timeout=PATIENCE)) as connection:
            yield connection


def processes(server: Server) -> list[int]:
    """The server's own and its workers'."""
    return [server.process.pid, *children(server.process.pid)]


def weigh(server: Server) -> tuple[int, int]:
    """Return megabytes and descriptors of all of a server's processes."""
    megabytes = descriptors = 0
    for process in processes(server):
        with contextlib.suppress(OSError):  # it has just been killed
            rollup = Path(f"/proc/{process}/smaps_rollup").read_text()
            megabytes += next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")) // 1024
            descriptors += len(os.listdir(f"/proc/{process}/fd"))
    return megabytes, descriptors


def queued(server: Server) -> list[float]:
    """Return the seconds that those who were answered waited for a seat, for memory and for the engine."""
    lines = [line for line in server.log.read_text(errors="replace").splitlines() if line.startswith("{")]
    facts = [entry for entry in map(json.loads, lines) if entry["status"] == 200 and "queue_ms" in entry]
    return [entry["queue_ms"] / 1000 for entry in facts]


@contextlib.contextmanager
def slow_peers(port: int, kinds: list[SlowClients]) -> Iterator[None]:
    """Have such connections within the block, from a process of their own."""
    _, its = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=keep_open, args=(port, kinds, its), daemon=True)
    process.start()
    try:
        yield
    finally:
        process.kill()
        process.join()


def kill_workers(server: Server, end: float) -> int:
    """Kill a worker now and then; returns how many."""
    rng, killed = random.Random(SEED), 0
    while time.monotonic() + KILL_SECONDS < end:
        threading.Event().wait(KILL_SECONDS)
        with contextlib.suppress(ProcessLookupError, IndexError):
            os.kill(rng.choice(children(server.process.pid)), signal.SIGKILL)
            killed += 1
    return killed


def soak(name: str, server: Server, paths: list[str], seconds: float, is_killed: bool) -> bool:
    """Let everybody loose on a server for a while, print what came of it; says whether all was as promised."""
    run, port = Soak(server, paths), int(server.url.rpartition(":")[2])
    end, killed = time.monotonic() + seconds, 0
    with contextlib.ExitStack() as peers, ThreadPoolExecutor(CLIENTS + 1) as pool:
        for kind in KINDS.values():
            peers.enter_context(slow_peers(port, [dataclasses.replace(one, count=one.count // 10) for one in kind]))
        clients = [pool.submit(run.client, number, end) for number in range(CLIENTS)]
        while time.monotonic() < end - 0.75 * seconds:  # by then every process has seen a large image
            threading.Event().wait(1)
        before = weigh(server)
        if is_killed:
            killed = pool.submit(kill_workers, server, end).result()
        for client in clients:
            client.result()
    with contextlib.suppress(AssertionError):  # sockets of slow peers are closed within seconds
        wait_until(lambda: weigh(server)[1] <= before[1] * GROWTH, 30)
    after = weigh(server)
    print(f"{name}: {seconds:.0f} s, {killed} workers killed")
    for (kind, outcome), count in sorted(run.outcomes.items(), key=str):
        print(f"  {kind:14} {outcome!s:8} {count}")
    for kind, values in [*run.seconds.items(), ("in the queue", queued(server))]:
        print(f"  {kind:14} p50 {np.percentile(values, 50):.2f} s, p99 {np.percentile(values, 99):.2f} s")
    print(f"  memory {before[0]} → {after[0]} MB, descriptors {before[1]} → {after[1]}", flush=True)
    unexpected = {outcome for _, outcome in run.outcomes} - EXPECTED
    broken = sum(count for (_, outcome), count in run.outcomes.items() if outcome == "broken")
    if (
        unexpected
        or (broken and not is_killed)
        or any(new > old * GROWTH for new, old in zip(after, before, strict=True))
    ):
        print(f"  NOT as promised: {unexpected or 'growth, or connections that broke'}")
        return False
    return True


def main() -> None:
    """Soak both kinds of endpoints for half of the time each."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        export_onnx(write_model(root), root / "model" / "model.onnx")
        with full_directory(root / "tmp") as full, on_slow_disk(root / "model", root / "disk") as (slow, slow_down):
            variables = {"SERVE_METRICS": "1", "TMPDIR": str(full)}
            with Server(root, root / "log", SAGEMAKER_MODEL_SERVER_WORKERS="2", TMPDIR=folder) as server:
                good = soak("ordinary, two workers", server, ["/invocations"], SECONDS / 2, is_killed=True)
            with Server(
                root, root / "log2", SAGEMAKER_MULTI_MODEL="true", MODEL_MEMORY_MB="2400", **variables
            ) as server:
                slow_down(processes(server))
                names = [f"m{number}" for number in range(MODELS)]
                for number, name in enumerate(names):
                    wanted = {"model_name": name, "url": str(slow if number < SLOW_MODELS else root / "model")}
                    requests.post(f"{server.url}/models", json=wanted, timeout=PATIENCE).raise_for_status()
                paths = [f"/models/{name}/invoke" for name in names]
                good &= soak("multi-model, 16 models", server, paths, SECONDS / 2, is_killed=False)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
