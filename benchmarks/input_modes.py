"""A training channel read in Pipe mode beside the same in File mode: samples per second and peak memory, interleaved.

Every round starts a process for each mode, which reads, decodes and augments a few passes as a job does; in Pipe mode
the feeder streams the records to it. The device is left out: it would hide the difference.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from container.data.loader import Loader
from container.data.samples import open_samples
from container.environment import Environment
from container.hyperparameters import load

_PASSES = 3


def make_channel(root: Path, images: int) -> None:
    """Lay out a job whose channel `train` holds `images` pairs of 500×375 pixels."""
    from benchmarks.peers.pictures import make_pairs

    data, config = root / "input" / "data", root / "input" / "config"
    for folder in (data / "train", data / "train_annotation", config):
        folder.mkdir(parents=True)
    for number, (photograph, annotation) in enumerate(make_pairs(images)):
        (data / "train" / f"{number:04}.jpg").write_bytes(photograph)
        (data / "train_annotation" / f"{number:04}.png").write_bytes(annotation)
    (config / "hyperparameters.json").write_text(json.dumps({"num_classes": 21, "num_training_samples": images}))
    lines = [
        json.dumps({"source-ref": f"{data}/train/{n:04}.jpg", "annotation-ref": f"{data}/train_annotation/{n:04}.png"})
        for n in range(images)
    ]
    (root / "train.manifest").write_text("\n".join(lines))


def read(root: Path) -> None:
    """Read the channel as a job does, and print samples per second and peak memory in MB."""
    environment = Environment.read(root)
    job = load(environment.hyperparameters)
    loader = Loader(open_samples(environment, "train", job), job, threading.Event())
    start = time.perf_counter()
    samples = sum(len(batch) for epoch in range(_PASSES) for batch in loader.training_epoch(epoch))
    rate = samples / (time.perf_counter() - start)
    status = Path("/proc/self/status").read_text()  # getrusage's figure would begin with the parent's
    peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    print(json.dumps([rate, peak / 1024]))


def measure(root: Path, mode: str) -> tuple[float, float]:
    """Have another process read the channel in `mode`."""
    reader = [sys.executable, "-m", "benchmarks.input_modes", "--read", str(root)]
    (root / "input" / "config" / "inputdataconfig.json").unlink(missing_ok=True)
    if mode == "Pipe":
        feeder = [sys.executable, "-m", "local_test.pipe_feeder", "--root", str(root)]
        reader = [*feeder, "--channel", f"train={root}/train.manifest", "--", *reader]
    rate, memory = json.loads(subprocess.run(reader, check=True, stdout=subprocess.PIPE).stdout)
    return rate, memory


def main() -> None:
    """Measure both modes by turns and print medians and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=400, help="pairs in the channel (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each mode, interleaved (%(default)s)")
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.read:
        return read(arguments.read)
    figures: dict[str, list[tuple[float, float]]] = {"File": [], "Pipe": []}
    with tempfile.TemporaryDirectory() as root:
        make_channel(Path(root), arguments.images)
        for _ in range(arguments.rounds):
            for mode, measured in figures.items():
                measured.append(measure(Path(root), mode))
    rates = {mode: statistics.median(rate for rate, _ in measured) for mode, measured in figures.items()}
    for mode, measured in figures.items():
        memory = statistics.median(memory for _, memory in measured)
        print(f"{mode:5} {rates[mode]:6.0f} samples/s, peak memory {memory:5.0f} MB (medians of {arguments.rounds})")
    print(f"ratio {rates['Pipe'] / rates['File']:6.2f}")
    return None


if __name__ == "__main__":
    main()
