"""Pipe mode compared with File mode: samples/s and peak memory of the input: `python -m benchmarks.input_modes`.

Each round starts a process per mode, which reads, decodes, and augments the samples of 3 epochs without training. In
Pipe mode, the simulator streams the records.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from functools import partial
from pathlib import Path

from benchmarks.support.images import make_pairs
from benchmarks.support.measure import interleave, print_ratios, run_python
from container.data.loader import Loader
from container.data.samples import open_samples
from container.environment import Environment
from container.hyperparameters import load

_EPOCHS = 3


def write_channel(root: Path, images: int) -> None:
    """Write a job whose `train` channel has `images` pairs, and a manifest of the pairs."""
    data, config = root / "input/data", root / "input/config"
    for folder in (data / "train", data / "train_annotation", config):
        folder.mkdir(parents=True)
    lines = []
    for number, pair in enumerate(make_pairs(images)):
        paths = data / f"train/{number:04}.jpg", data / f"train_annotation/{number:04}.png"
        for path, content in zip(paths, pair, strict=True):
            path.write_bytes(content)
        lines.append(json.dumps({"source-ref": str(paths[0]), "annotation-ref": str(paths[1])}))
    (config / "hyperparameters.json").write_text(json.dumps({"num_classes": 21, "num_training_samples": images}))
    (root / "train.manifest").write_text("\n".join(lines))


def read(root: Path) -> None:
    """Read the channel as a job does, and print samples/s and the peak memory in MB."""
    environment = Environment.read(root)
    job = load(environment.hyperparameters)
    loader = Loader(open_samples(environment, "train", job), job, threading.Event())
    start = time.perf_counter()
    samples = sum(len(batch) for epoch in range(_EPOCHS) for batch in loader.training_epoch(epoch))
    rate = samples / (time.perf_counter() - start)
    status = Path("/proc/self/status").read_text()  # getrusage would include the peak of the parent
    peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    print(json.dumps([rate, peak / 1024]))


def measure(root: Path, mode: str) -> tuple[float, float]:
    """Read the channel in a child process, and return samples/s and the peak memory in MB."""
    reader = ["-m", "benchmarks.input_modes", "--read", str(root)]
    (root / "input/config/inputdataconfig.json").unlink(missing_ok=True)
    if mode == "Pipe":
        feeder = ["-m", "local_test.pipe_feeder", "--root", str(root), "--channel", f"train={root}/train.manifest"]
        reader = [*feeder, "--", sys.executable, *reader]
    rate, memory = json.loads(run_python(reader, os.environ))
    return rate, memory


def main() -> None:
    """Measure both modes, and print medians and ratios."""
    parser = argparse.ArgumentParser(description="Compare the input in Pipe mode and File mode.")
    parser.add_argument("--images", type=int, default=400, help="pairs in the channel (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds per mode, interleaved (%(default)s)")
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.read:
        return read(arguments.read)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_channel(root, arguments.images)
        variants = {mode: partial(measure, root, mode) for mode in ("File", "Pipe")}
        results = interleave(variants, arguments.rounds)
    for part, unit in enumerate(("samples/s", "MB")):
        values = {mode: statistics.median(run[part] for run in runs) for mode, runs in results.items()}
        print_ratios(values, unit, "File")
    return None


if __name__ == "__main__":
    main()
