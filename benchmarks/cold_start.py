"""Cold start of the container image, as in a serverless endpoint: `python -m benchmarks.cold_start [MODEL ...]`.

The container has a read-only root file system and limited memory. Prints the minimum over several starts of the seconds
and CPU seconds until /ping returns 200, then, for growing images until one is rejected, the seconds of a mask and the
sum of the peaks of the processes. The weights are random. IMAGE selects another container image than the CPU image.
"""

from __future__ import annotations

import argparse
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

os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the export of the models

from benchmarks.support.images import make_image
from benchmarks.support.models import write_model
from container.artifact import model_directory

MODELS = ("fcn/resnet-18", "fcn/resnet-34", "fcn/resnet-50", "fcn/resnet-101", "psp/resnet-50", "deeplab/resnet-50")
MEMORY_GB = (2, 3, 6)
START_TIMEOUT = 180  # seconds, as in a serverless endpoint
TIMEOUT = 600  # seconds per request, so that a busy machine does not change the responses
PEAK = """
import pathlib
status = [path.read_text() for path in pathlib.Path("/proc").glob("[0-9]*/status")]
print(sum(int(line.split()[1]) for text in status for line in text.splitlines() if line.startswith("VmHWM")) // 1024)
"""
CPU = """
import pathlib
status = [path.read_text().rpartition(")")[2].split() for path in pathlib.Path("/proc").glob("[0-9]*/stat")]
print(sum(int(fields[11]) + int(fields[12]) for fields in status))
"""


class Start(NamedTuple):
    """One start: seconds and CPU seconds until it was ready, and per mask the side, seconds, and peak memory in MB."""

    seconds: float
    cpu: float
    masks: list[tuple[int, float, int]]


def start(engine: str, image: str, model: Path, options: list[str], sides: list[int]) -> Start:
    """Run a container, request masks of growing images until one is rejected, and remove the container."""
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
            if time.perf_counter() - began > START_TIMEOUT:
                raise SystemExit(subprocess.check_output([engine, "logs", name], stderr=subprocess.STDOUT, text=True))
            time.sleep(0.02)
        seconds, cpu = time.perf_counter() - began, float(run_inside(engine, name, CPU)) / os.sysconf("SC_CLK_TCK")
        masks: list[tuple[int, float, int]] = []
        for side in sides:
            mask_seconds = request_mask(url, side)
            if mask_seconds is None:
                break
            masks.append((side, mask_seconds, int(run_inside(engine, name, PEAK))))
        return Start(seconds, cpu, masks)
    finally:
        subprocess.run([engine, "rm", "--force", name], capture_output=True)


def request_mask(url: str, side: int) -> float | None:
    """Return the seconds of the mask of a square image, or None if the server rejects the image as too large."""
    headers = {"Content-Type": "image/jpeg", "Accept": "image/png"}
    request = urllib.request.Request(f"{url}/invocations", make_image(side, side), headers)
    began = time.perf_counter()
    try:
        urllib.request.urlopen(request, timeout=TIMEOUT).read()
    except urllib.error.HTTPError as error:
        if error.code == 413:
            return None
        raise SystemExit(f"{side}×{side}: {error.code} {error.read().decode()}") from error
    return time.perf_counter() - began


def ping(url: str) -> bool:
    """Return whether the server is ready."""
    try:
        return bool(urllib.request.urlopen(f"{url}/ping", timeout=2).status == 200)
    except OSError:
        return False


def run_inside(engine: str, name: str, program: str) -> str:
    """Run Python in the container, and return its output."""
    return subprocess.check_output([engine, "exec", name, "python", "-c", program], text=True)


def find_engine(image: str) -> str:
    """Return the container engine that has the image."""
    for engine in filter(shutil.which, ("docker", "podman")):
        if not subprocess.run([engine, "image", "inspect", image], capture_output=True).returncode:
            return engine
    raise SystemExit(f"the image {image} does not exist: run make image-cpu")


def main() -> None:
    """Measure, and print a row for each model and memory size."""
    parser = argparse.ArgumentParser(description="Time the cold start of a serverless endpoint.")
    parser.add_argument("models", nargs="*", default=MODELS)
    parser.add_argument("--memory", type=int, nargs="+", default=MEMORY_GB, metavar="GB")
    parser.add_argument("--sides", type=int, nargs="+", default=[480, 1000, 2000, 3000], help="of the images")
    parser.add_argument("--precision", default="auto", help="SERVE_PRECISION")
    parser.add_argument("--builtin", action="store_true", help="without ONNX model, like the built-in algorithm")
    parser.add_argument("--starts", type=int, default=3, help="of which the fastest counts")
    arguments = parser.parse_args()
    image = os.environ.get("IMAGE", "sagemaker-semantic-segmentation:cpu")
    engine = find_engine(image)
    with tempfile.TemporaryDirectory() as scratch:
        for name in arguments.models:
            model = Path(scratch, name.replace("/", "-"))
            write_model(model, *name.split("/"))
            if arguments.builtin:
                (model / model_directory.GRAPH).unlink()
            for gigabytes in arguments.memory:
                options = ["--memory", f"{gigabytes}g", "--memory-swap", f"{gigabytes}g"]
                options += ["--env", f"SERVE_PRECISION={arguments.precision}"]
                if arguments.builtin:
                    options += ["--tmpfs", "/tmp"]  # for the exported ONNX model
                sides = [arguments.sides[:1]] * (arguments.starts - 1) + [arguments.sides]
                starts = [start(engine, image, model, options, each) for each in sides]
                seconds, cpu = min(each.seconds for each in starts), min(each.cpu for each in starts)
                masks = ", ".join(f"{side}² {mask:.1f} s {peak} MB" for side, mask, peak in starts[-1].masks)
                print(f"{name:17} {gigabytes} GB: ready {seconds:.1f} s, CPU {cpu:.1f} s; {masks}", flush=True)


if __name__ == "__main__":
    main()
