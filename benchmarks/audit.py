"""The audit beside one training epoch of the input pipeline alone (read, decode, augment, batch), interleaved.

On the demo's data and on drawn 500×375 pairs. Prints medians and ratios; the goals are 0.7 for full, 0.05 for fast.
"""

from __future__ import annotations

import argparse
import logging
import resource
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.peers.pictures import make_pairs
from container.data.audit.audit import Audit
from container.data.loader import Loader
from container.data.samples import Samples, open_samples
from container.environment import Environment
from container.hyperparameters import Hyperparameters, load
from local_test.demo_data import HYPERPARAMETERS, write_job, write_samples

_JOB = {"num_classes": 21, "base_size": 520, "crop_size": 240, "mini_batch_size": 16, "_seed": 1}


def write_drawn(root: Path, count: int) -> None:
    """Write `count` pairs of 500×375 pixels as the channel train, and a few as validation."""
    (root / "input/config").mkdir(parents=True)
    (root / "input/config/hyperparameters.json").write_text("{}")
    pairs = make_pairs(min(count, 64))
    for channel, number in (("train", count), ("validation", 16)):
        for place in range(number):
            for data, folder, suffix in zip(
                pairs[place % len(pairs)], ("", "_annotation"), ("jpg", "png"), strict=True
            ):
                path = root / f"input/data/{channel}{folder}/{place:05d}.{suffix}"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)


def epoch(samples: Samples, job: Hyperparameters) -> None:
    """Make one pass over the training samples, as a job does."""
    for _ in Loader(samples, job, threading.Event()).training_epoch(0):
        pass


def measure(name: str, root: Path, job: Hyperparameters, rounds: int) -> None:
    """Time epoch, full and fast audit by turns."""
    samples = open_samples(Environment.read(root), "train", job)
    folder = root / "output/data"

    def audit(mode: str) -> Callable[[], None]:
        return lambda: Audit(job, {"train": samples}, folder).run(mode, threading.Event())

    ways = {"epoch": lambda: epoch(samples, job), "full": audit("full"), "fast": audit("fast")}
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, run in ways.items():
            start = time.perf_counter()
            run()
            seconds[way].append(time.perf_counter() - start)
    medians = {way: statistics.median(each) for way, each in seconds.items()}
    print(f"{name}: one epoch {medians['epoch']:.3f} s")
    for mode in ("full", "fast"):
        print(f"  audit {mode}  {medians[mode]:.3f} s, {medians[mode] / medians['epoch']:.3f} of it")


def main() -> None:
    """Measure both data sets."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=2000, help="drawn pairs (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each, interleaved (%(default)s)")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        demo, drawn = Path(folder, "demo"), Path(folder, "drawn")
        for channel, count in (("train", 120), ("validation", 24)):
            write_samples(demo / "input/data", channel, count, (160, 128), seed=0)
        write_job(demo, 120, {})
        measure("the demo's pairs", demo, load({**HYPERPARAMETERS, "num_training_samples": 1}), arguments.rounds)
        write_drawn(drawn, arguments.pairs)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        measure(
            f"{arguments.pairs} pairs of 500×375", drawn, load({**_JOB, "num_training_samples": 1}), arguments.rounds
        )
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        print(f"  peak memory grew by {grown / 1024:.0f} MB")


if __name__ == "__main__":
    main()
