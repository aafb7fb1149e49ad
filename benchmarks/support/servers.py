"""Server processes of the benchmarks, and concurrent clients."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks.support.measure import ROOT
from container.environment import cpu_count

TIMEOUT = 300.0  # seconds
SERVE = [sys.executable, "serve"]


def flask_command(*options: str) -> list[str]:
    """Return the command of the baseline, a Flask application on gunicorn with one worker per CPU."""
    gunicorn = [sys.executable, "-m", "gunicorn", "--bind", "127.0.0.1:PORT", "--workers", str(cpu_count())]
    gunicorn += ["--timeout", str(int(TIMEOUT)), "--no-control-socket"]
    return [*gunicorn, *options, "benchmarks.support.flask_server:create_app()"]


def compile_record(folder: Path) -> None:
    """Write record_pb2.py, the protobuf classes of a response with probabilities."""
    from grpc_tools import protoc

    protoc.main(["protoc", f"-I{ROOT / 'tests/job'}", f"--python_out={folder}", "record.proto"])


class Server:
    """A running server. `process` and its children are its memory."""

    def __init__(self, command: Sequence[str], base: Path, variables: Mapping[str, str]) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"} | {**variables}
        environment |= {"SAGEMAKER_BASE_DIR": str(base), "SAGEMAKER_BIND_TO_PORT": str(self.port)}
        start, quiet = time.perf_counter(), subprocess.DEVNULL
        words = [word.replace("PORT", str(self.port)) for word in command]
        self.process = subprocess.Popen(words, cwd=ROOT, env=environment, stdout=quiet, stderr=quiet)
        while True:
            with contextlib.suppress(OSError):
                self.request("GET", "/ping")
                break
            if self.process.poll() is not None or time.perf_counter() - start > TIMEOUT:
                raise SystemExit(f"{' '.join(words)} does not respond")
            time.sleep(0.02)
        self.start_seconds = time.perf_counter() - start

    def send(
        self, method: str, path: str, body: bytes = b"", accept: str = "image/png", timeout: float = TIMEOUT
    ) -> tuple[int, bytes]:
        """Return the status and body of a response; raises OSError if there is no response."""
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)) as connection:
            try:
                connection.request(method, path, body, {"Content-Type": "image/jpeg", "Accept": accept})
                response = connection.getresponse()
                return response.status, response.read()
            except http.client.HTTPException as error:
                raise OSError(f"no response to {path}: {error}") from error

    def request(
        self, method: str, path: str, body: bytes = b"", accept: str = "image/png", timeout: float = TIMEOUT
    ) -> float:
        """Return the seconds until the complete response with status 200; raises OSError for other responses."""
        start = time.perf_counter()
        status, _ = self.send(method, path, body, accept, timeout)
        if status != 200:
            raise OSError(f"{path} returned {status}")
        return time.perf_counter() - start

    def memory(self) -> int:
        """Return the bytes of all processes, with shared memory counted once."""
        total, processes = 0, [self.process.pid]
        for process in processes:
            processes += map(int, Path(f"/proc/{process}/task/{process}/children").read_text().split())
            rollup = Path(f"/proc/{process}/smaps_rollup").read_text()
            total += next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")) * 1024
        return total


@contextlib.contextmanager
def running(command: Sequence[str], base: Path, **variables: str) -> Iterator[Server]:
    """Run a server within the block."""
    server = Server(command, base, variables)
    try:
        yield server
    finally:
        server.process.terminate()
        server.process.wait()


def run_clients(count: int, seconds: float, request: Callable[[int], Hashable]) -> Counter[Hashable]:
    """Call `request(client)` repeatedly in `count` threads, and count its results."""
    results: Counter[Hashable] = Counter()
    end, lock = time.monotonic() + seconds, threading.Lock()

    def run(client: int) -> None:
        while time.monotonic() < end:
            result = request(client)
            with lock:
                results[result] += 1

    threads = [threading.Thread(target=run, args=(client,)) for client in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def format_counts(counts: Mapping[Hashable, int]) -> str:
    """Return counts as text, in order."""
    return ", ".join(f"{key}: {count}" for key, count in sorted(counts.items(), key=str))
