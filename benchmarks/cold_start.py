"""Starts the image as a serverless endpoint does, per network and memory size: `python -m benchmarks.cold_start`.

The container has a read-only root, one port, and as much memory as is said. Printed are, the best of several starts,
the seconds from `run` to the first 200 on /ping and the CPU seconds until then (which other work on the machine changes
little); then, for growing images until one is refused, the seconds of a mask and the peaks of the processes' memory,
added up. The weights are random. IMAGE names another image than the CPU one.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

os.environ.setdefault("OMP_NUM_THREADS", "1")  # of what makes the models here

import mxnet as mx

from container.artifact import model_directory
from container.artifact.check import write_check
from container.hyperparameters import load
from container.mx.export import export_onnx
from container.mx.networks.segmentation import SegmentationNetwork, initialize_weights
from container.mx.trainer import Trainer

NETWORKS = ("fcn/resnet-18", "fcn/resnet-34", "fcn/resnet-50", "fcn/resnet-101", "psp/resnet-50", "deeplab/resnet-50")
MEMORY_GB = (2, 3, 6)
PATIENCE = 180  # seconds that a serverless endpoint waits for /ping
TIMEOUT = 600  # of a request: a busy machine must not decide what is answered
PEAK = """
import pathlib
server = [path.read_text() for path in pathlib.Path("/proc").glob("[0-9]*/status")]
print(sum(int(line.split()[1]) for text in server for line in text.splitlines() if line.startswith("VmHWM")) // 1024)
"""
CPU = """
import pathlib
server = [path.read_text().rpartition(")")[2].split() for path in pathlib.Path("/proc").glob("[0-9]*/stat")]
print(sum(int(fields[11]) + int(fields[12]) for fields in server))
"""


class EncodedResponse(NamedTuple):
    """A mask: its image's side in pixels, the seconds it took, and the processes' peaks of memory by then, in MB."""

    side: int
    seconds: float
    peak: int


class Start(NamedTuple):
    """One start of a container: seconds and CPU seconds until it was ready, and what it answered."""

    ready: float
    cpu: float
    answers: list[EncodedResponse]


def make_model(folder: Path, network_name: str, with_graph: bool) -> Path:
    """Write what a job leaves, with random weights and 21 classes; the built-in's leave no graph."""
    algorithm, backbone = network_name.split("/")
    model = folder / network_name.replace("/", "-")
    model.mkdir()
    job = load({"num_classes": 21, "num_training_samples": 4, "algorithm": algorithm, "backbone": backbone})
    network = SegmentationNetwork(algorithm, backbone, 21)
    initialize_weights(network)
    network.hybridize()
    trainer = Trainer(network, job, [mx.cpu()])
    trainer.save_weights(model / model_directory.BEST_WEIGHTS)
    model_directory.write_json(model / model_directory.HYPERPARAMETERS, job.as_dict())
    if with_graph:
        write_check(model, trainer.probabilities)
        export_onnx(network, model / model_directory.GRAPH)
    return model


def start(engine: str, image: str, model: Path, options: list[str], sides: list[int]) -> Start:
    """Start a container, ask for masks of growing images until one is refused, and remove the container."""
    name = f"cold-start-{uuid.uuid4().hex}"
    strict = ["--read-only-tmpfs=false"] if engine.endswith("podman") else []
    command = [engine, "run", "--detach", "--name", name, "--read-only", *strict, "--publish", "127.0.0.1::8080"]
    command += ["--volume", f"{model}:/opt/ml/model:ro", "--env", f"SAGEMAKER_MODEL_SERVER_TIMEOUT={TIMEOUT}"]
    began = time.perf_counter()
    done = subprocess.run([*command, *options, image, "serve"], capture_output=True, text=True)
    try:
        if done.returncode:
            raise SystemExit(done.stderr)
        url = "http://" + subprocess.check_output([engine, "port", name, "8080"], text=True).split()[-1]
        while not ping(url):
            if time.perf_counter() - began > PATIENCE:
                raise SystemExit(subprocess.check_output([engine, "logs", name], stderr=subprocess.STDOUT, text=True))
            time.sleep(0.02)
        ready, cpu = time.perf_counter() - began, float(inside(engine, name, CPU)) / os.sysconf("SC_CLK_TCK")
        answers: list[EncodedResponse] = []
        for side in sides:
            seconds = ask(url, side)
            if seconds is None:
                break
            answers.append(EncodedResponse(side, seconds, int(inside(engine, name, PEAK))))
        return Start(ready, cpu, answers)
    finally:
        subprocess.run([engine, "rm", "--force", name], capture_output=True)


def ask(url: str, side: int) -> float | None:
    """Return the seconds until the mask of a square image is there; None when the image is refused as too large."""
    with io.BytesIO() as photo:
        rng = np.random.default_rng(0)
        drawn = Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).resize((side, side))
        drawn.save(photo, "JPEG")
        headers = {"Content-Type": "image/jpeg", "Accept": "image/png"}
        request = urllib.request.Request(f"{url}/invocations", photo.getvalue(), headers)
    asked = time.perf_counter()
    try:
        urllib.request.urlopen(request, timeout=TIMEOUT).read()
    except urllib.error.HTTPError as error:
        if error.code == 413:
            return None
        raise SystemExit(f"{side}×{side}: {error.code} {error.read().decode()}") from error
    return time.perf_counter() - asked


def ping(url: str) -> bool:
    """Say whether the server is ready."""
    try:
        return bool(urllib.request.urlopen(f"{url}/ping", timeout=2).status == 200)
    except OSError:
        return False


def inside(engine: str, name: str, program: str) -> str:
    """Return what a program prints in the container."""
    return subprocess.check_output([engine, "exec", name, "python", "-c", program], text=True)


def find_engine(image: str) -> str:
    """Return the container engine that has the image."""
    for engine in ("docker", "podman"):
        if (
            shutil.which(engine)
            and not subprocess.run([engine, "image", "inspect", image], capture_output=True).returncode
        ):
            return engine
    raise SystemExit(f"there is no image {image}: make image-cpu")


def main() -> None:
    """Print a row per network and memory size."""
    parser = argparse.ArgumentParser(description="Time a serverless endpoint's cold start.")
    parser.add_argument("networks", nargs="*", default=NETWORKS)
    parser.add_argument("--memory", type=int, nargs="+", default=MEMORY_GB, metavar="GB")
    parser.add_argument("--sides", type=int, nargs="+", default=[480, 1000, 2000, 3000], help="of the images asked for")
    parser.add_argument("--precision", default="auto", help="SERVE_PRECISION")
    parser.add_argument("--builtin", action="store_true", help="serve archives without a graph, as the built-in's are")
    parser.add_argument("--starts", type=int, default=3, help="of which the quickest counts")
    arguments = parser.parse_args()
    image = os.environ.get("IMAGE", "sagemaker-semantic-segmentation:cpu")
    engine = find_engine(image)
    with tempfile.TemporaryDirectory() as scratch:
        for network in arguments.networks:
            model = make_model(Path(scratch), network, not arguments.builtin)
            for gigabytes in arguments.memory:
                sides = [arguments.sides[:1]] * (arguments.starts - 1) + [arguments.sides]
                options = ["--memory", f"{gigabytes}g", "--memory-swap", f"{gigabytes}g"]
                options += ["--env", f"SERVE_PRECISION={arguments.precision}"]
                if arguments.builtin:
                    options += ["--tmpfs", "/tmp"]  # where the graph is made
                starts = [start(engine, image, model, options, each) for each in sides]
                ready, cpu = min(each.ready for each in starts), min(each.cpu for each in starts)
                asked = ", ".join(f"{side}² {seconds:.1f} s {peak} MB" for side, seconds, peak in starts[-1].answers)
                print(f"{network:17} {gigabytes} GB: ready {ready:.1f} s, CPU {cpu:.1f} s; {asked}", flush=True)


if __name__ == "__main__":
    main()
