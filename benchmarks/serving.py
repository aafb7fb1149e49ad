"""Our server beside the plain one that most people write, on the same weights: `python -m benchmarks.serving`.

The peer (peers/plain_server.py) runs on gunicorn with a sync worker per core; once as written, once with
OMP_NUM_THREADS set to all cores. Every server is sent the same images, in turns; printed are median and p99 latency,
images/s and memory (proportional set size), and the ratios to ours. What slow peers do to them: benchmarks/pressure.py.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np

from container.environment import cpu_count

ROOT = Path(__file__).resolve().parents[1]
CONCURRENCIES = (1, 2, 4, 8)
PATIENCE = 300


class Server:
    """A running server; `process` and its children are what it costs."""

    def __init__(self, command: list[str], root: Path, proto: Path, **variables: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"} | variables
        environment |= {"SAGEMAKER_BASE_DIR": str(root), "PEER_PROTO": str(proto)}
        environment["SAGEMAKER_BIND_TO_PORT"] = str(self.port)
        command = [part.replace("PORT", str(self.port)) for part in command]
        start = time.perf_counter()
        quiet = subprocess.DEVNULL
        self.process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=quiet, stderr=quiet)
        while True:
            with contextlib.suppress(OSError):
                self.ask("GET", "/ping")
                break
            if self.process.poll() is not None or time.perf_counter() - start > PATIENCE:
                raise SystemExit(f"{' '.join(command)} does not answer")
            time.sleep(0.02)
        self.start_seconds = time.perf_counter() - start

    def ask(
        self, method: str, path: str, body: bytes = b"", accept: str = "image/png", timeout: float = PATIENCE
    ) -> float:
        """Return the seconds until the whole answer was there; raises OSError when it is none or an error."""
        start = time.perf_counter()
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)) as connection:
            try:
                connection.request(method, path, body, {"Content-Type": "image/jpeg", "Accept": accept})
                response = connection.getresponse()
                response.read()
            except http.client.HTTPException as error:
                raise OSError(f"{path} was not answered: {error}") from error
        if response.status != 200:
            raise OSError(f"{path} answered {response.status}")
        return time.perf_counter() - start

    def memory(self) -> int:
        """Return the bytes that its processes hold, what they share counted once."""
        total, processes = 0, [self.process.pid]
        for process in processes:
            processes += map(int, Path(f"/proc/{process}/task/{process}/children").read_text().split())
            rollup = Path(f"/proc/{process}/smaps_rollup").read_text()
            total += next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")) * 1024
        return total


@contextlib.contextmanager
def running(root: Path, proto: Path) -> Iterator[dict[str, Server]]:
    """Start ours and both peers, and end them."""
    plain = [sys.executable, "-m", "gunicorn", "--bind", "127.0.0.1:PORT", "--workers", str(cpu_count())]
    plain += ["--timeout", str(PATIENCE), "--no-control-socket", "benchmarks.peers.plain_server:create_app()"]
    servers: dict[str, Server] = {}
    try:
        servers["ours"] = Server([sys.executable, "serve"], root, proto)
        servers["peer"] = Server(plain, root, proto)
        servers["peer, all cores"] = Server(plain, root, proto, OMP_NUM_THREADS=str(cpu_count()))
        yield servers
    finally:
        for server in servers.values():
            server.process.terminate()
            server.process.wait()


def make_images(count: int, height: int, width: int) -> list[bytes]:
    """Make photograph-like JPEGs."""
    rng, images = np.random.default_rng(0), []
    for _ in range(count):
        coarse = rng.integers(0, 256, (12, 16, 3), np.uint8)
        smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        images.append(cv2.imencode(".jpg", smooth)[1].tobytes())
    return images


def make_model(root: Path, proto: Path) -> None:
    """Write an archive with random weights, and protobuf's classes for the peer."""
    from grpc_tools import protoc

    source = ROOT / "tests" / "job"
    protoc.main(["protoc", f"-I{source}", f"--python_out={proto}", "record.proto"])
    make_archive(root, "resnet-50", 21)


def make_archive(root: Path, backbone: str, classes: int) -> None:
    """Write an fcn's archive with random weights."""
    from container.mx.export import export_onnx
    from container.mx.networks.segmentation import SegmentationNetwork, initialize_weights

    model = root / "model"
    model.mkdir()
    settings = {"num_classes": classes, "algorithm": "fcn", "backbone": backbone}
    (model / "hyperparams.json").write_text(json.dumps(settings))
    network = SegmentationNetwork("fcn", backbone, classes)
    initialize_weights(network)
    network.save_parameters(str(model / "model_best.params"))
    export_onnx(network, model / "model.onnx")


@contextlib.contextmanager
def a_model(given: Path | None) -> Iterator[tuple[Path, Path]]:
    """The given model directory's parent, or that of a model that is made, and protobuf's classes for the peer."""
    with tempfile.TemporaryDirectory() as root, tempfile.TemporaryDirectory() as proto:
        if given is None:
            make_model(Path(root), Path(proto))
        yield given or Path(root), Path(proto)


def main() -> None:
    """Measure, and print a table for each concurrency."""
    parser = argparse.ArgumentParser(description="Time our server beside the plain one.")
    parser.add_argument("--accept", default="image/png", help="or application/x-protobuf (%(default)s)")
    parser.add_argument("--size", type=int, nargs=2, default=(480, 480), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--rounds", type=int, default=3, help="turns of every server (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="one turn, small images, concurrency 1 and 2")
    arguments = parser.parse_args()
    size, rounds = ((120, 160), 1) if arguments.quick else (arguments.size, arguments.rounds)
    concurrencies = CONCURRENCIES[:2] if arguments.quick else CONCURRENCIES
    images = make_images(8, *size)
    with a_model(None) as (root, proto), running(root, proto) as servers:
        compare(servers, images, concurrencies, rounds, arguments.accept)


def compare(
    servers: dict[str, Server], images: list[bytes], concurrencies: tuple[int, ...], rounds: int, accept: str
) -> None:
    """Send all images to each server in turns, and print what came of it."""
    for name, server in servers.items():
        for _ in range(cpu_count()):
            server.ask("POST", "/invocations", images[0], accept)
        print(f"{name:16} first /ping after {server.start_seconds:.1f} s")
    for concurrency in concurrencies:
        latencies, seconds = defaultdict(list), defaultdict(float)
        for _ in range(rounds):
            for name, server in servers.items():
                start = time.perf_counter()
                with ThreadPoolExecutor(concurrency) as pool:
                    latencies[name] += pool.map(
                        lambda image, to=server: to.ask("POST", "/invocations", image, accept), images
                    )
                seconds[name] += time.perf_counter() - start
        for name, server in servers.items():
            values = latencies[name]
            print(
                f"concurrency {concurrency}  {name:16} median {statistics.median(values):.3f} s  "
                f"p99 {np.percentile(values, 99):.3f} s  {len(values) / seconds[name]:.2f} images/s  "
                f"{server.memory() / 2**20:.0f} MB  ours is {seconds[name] / seconds['ours']:.2f}x as fast, "
                f"with {servers['ours'].memory() / server.memory():.2f}x its memory"
            )


if __name__ == "__main__":
    main()
