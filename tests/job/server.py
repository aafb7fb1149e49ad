"""The real `serve` process for tests, and models with random weights to serve."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import mxnet as mx
import numpy as np
import requests
from PIL import Image

from container.mx.networks.segmentation import SegmentationNetwork, initialize_weights
from tests.conftest import PROGRAM, wait_until

CLASSES = 5
PATIENCE = 120  # seconds until what should happen has failed to


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class Server:
    """A `serve` process, its address and its log."""

    def __init__(self, root: Path, log: Path, **variables: str) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.log = log
        environment = {**os.environ, "SAGEMAKER_BASE_DIR": str(root), "SAGEMAKER_BIND_TO_PORT": str(port), **variables}
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, str(PROGRAM / "serve")], cwd="/", env=environment, stdout=output, stderr=output
            )

    def __enter__(self) -> Server:
        try:
            self.before_ready = self.ping_until_ready()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    def ping_until_ready(self) -> list[requests.Response]:
        """Ask /ping until it is 200; returns what it answered before."""
        answers: list[requests.Response] = []

        def is_ready() -> bool:
            assert self.process.poll() is None, self.log.read_text()
            with contextlib.suppress(requests.ConnectionError, requests.Timeout):  # until it listens and is heard
                answers.append(requests.get(f"{self.url}/ping", headers={"Connection": "close"}, timeout=2))
            return bool(answers) and answers[-1].status_code == 200

        wait_until(is_ready, PATIENCE, self.log.read_text)
        return answers[:-1]

    def invoke(self, body: bytes, accept: str = "image/png") -> requests.Response:
        headers = {"Content-Type": "image/png", "Accept": accept}
        return requests.post(f"{self.url}/invocations", body, headers=headers, timeout=PATIENCE)

    def start_invocation(self, body: bytes) -> http.client.HTTPConnection:
        """Send a request whose answer is the caller's to read."""
        connection = http.client.HTTPConnection(self.url.removeprefix("http://"), timeout=PATIENCE)
        connection.request("POST", "/invocations", body, {"Content-Type": "image/png"})
        return connection


def write_model(root: Path) -> SegmentationNetwork:
    """Write an archive in the built-in's layout: weights and a configuration whose values are strings."""
    model = root / "model"
    model.mkdir()
    mx.random.seed(5)
    network = SegmentationNetwork("fcn", "resnet-50", CLASSES)
    initialize_weights(network)
    network.save_parameters(str(model / "model_best.params"))
    settings = {"num_classes": str(CLASSES), "algorithm": "fcn", "backbone": "resnet-50", "crop_size": "240"}
    (model / "hyperparams.json").write_text(json.dumps(settings))
    return network


def noise(height: int, width: int) -> bytes:
    pixels = np.random.default_rng(height).integers(0, 256, (height, width, 3)).astype(np.uint8)
    target = io.BytesIO()
    Image.fromarray(pixels).save(target, "PNG")
    return target.getvalue()


def run_serve(root: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "SAGEMAKER_BASE_DIR": str(root), **variables}
    command = [sys.executable, str(PROGRAM / "serve")]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False)


def children(process_id: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{process_id}/task/{process_id}/children").read_text().split()]
