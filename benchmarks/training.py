"""Our training loop beside GluonCV's own, end to end: seconds a step, peak memory, samples a second.

Both train the same network from the same weights on the same files, from decoding to the update, in processes of their
own and by turns; ours in float32 and bfloat16, both on one and on two CPU contexts. The first steps, which build the
graph, are left out. Prints medians over the rounds, and ratios to GluonCV's. Without AVX-512 there is no bfloat16.

To try it: --images 16 --crop-size 64 --rounds 1
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from benchmarks.peers.job_tree import lay_out
from benchmarks.peers.rare_class import NUM_CLASSES, draw_set
from container.environment import processor_has

_WARM = 2  # steps


@dataclasses.dataclass(frozen=True)
class Run:
    """One way to train."""

    name: str
    devices: int
    precision: str = "float32"


RUNS = [
    Run("GluonCV", 1),
    Run("ours", 1),
    Run("ours", 1, "bfloat16"),
    Run("GluonCV", 2),
    Run("ours", 2),
    Run("ours", 2, "bfloat16"),
]


def main() -> None:
    """Run everything by turns, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with train and train_annotation; without it one is drawn")
    parser.add_argument("--num-classes", type=int, default=NUM_CLASSES)
    parser.add_argument("--images", type=int, default=64, help="to draw (%(default)s)")
    parser.add_argument("--algorithm", default="fcn")
    parser.add_argument("--backbone", default="resnet-18")
    parser.add_argument("--crop-size", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(_ours(Run(**json.loads(arguments.one)), arguments)))
        return
    runs = RUNS
    if not processor_has("avx512bw"):
        print("bfloat16 is left out: without AVX-512 jobs train in float32", file=sys.stderr)
        runs = [run for run in RUNS if run.precision == "float32"]
    found: dict[Run, list[dict[str, float]]] = {run: [] for run in runs}
    with tempfile.TemporaryDirectory() as scratch:
        if arguments.data is None:
            arguments.data = Path(scratch)
            draw_set(arguments.data, arguments.images, 1)
        for _ in range(arguments.rounds):
            for run, figures in found.items():
                figures.append(_measure(run, arguments))
    _print_table(found)


def _measure(run: Run, arguments: argparse.Namespace) -> dict[str, float]:
    """Make two epochs in a process of its own."""
    if run.name == "ours":
        options = {
            "data": arguments.data,
            "num-classes": arguments.num_classes,
            "algorithm": arguments.algorithm,
            "backbone": arguments.backbone,
            "crop-size": arguments.crop_size,
            "batch-size": arguments.batch_size,
            "one": json.dumps(dataclasses.asdict(run)),
        }
        command = ["-m", "benchmarks.training", *(f"--{name}={value}" for name, value in options.items())]
        return _figures(json.loads(_python(command)))
    recipe = {
        "algorithm": arguments.algorithm,
        "backbone": arguments.backbone,
        "num_classes": arguments.num_classes,
        "base_size": 2 * arguments.crop_size,
        "crop_size": arguments.crop_size,
        "epochs": 2,
        "batch_size": arguments.batch_size,
        "lr": 0.001,
        "workers": len(os.sched_getaffinity(0)),
        "seed": 1,
        "devices": run.devices,
    }
    command = ["-m", "benchmarks.peers.gluoncv_script", str(arguments.data), os.devnull, json.dumps(recipe)]
    return _figures(json.loads(_python(command)))


def _figures(told: dict[str, Any]) -> dict[str, float]:
    """Sum up what a run has told: seconds of each step, of each epoch, and samples."""
    steps = told["step"][_WARM:] or told["step"]
    return {
        "step": statistics.median(steps),
        "rate": told["samples"][-1] / told["seconds"][-1],
        "peak_mb": told["peak_mb"],
    }


def _ours(run: Run, arguments: argparse.Namespace) -> dict[str, Any]:
    """Train two epochs as `Fit` does, one step always under way; seconds from one step's end to the next's."""
    import mxnet as mx
    import numpy as np

    from container.data.loader import Loader
    from container.data.samples import open_samples
    from container.environment import Environment
    from container.hyperparameters import load
    from container.mx.devices import resolve_precision
    from container.mx.networks.segmentation import SegmentationNetwork, initialize_weights
    from container.mx.trainer import Trainer

    devices = [mx.cpu(number) for number in range(run.devices)]
    with tempfile.TemporaryDirectory() as folder:
        settings = {
            "num_classes": arguments.num_classes,
            "algorithm": arguments.algorithm,
            "backbone": arguments.backbone,
            "crop_size": arguments.crop_size,
            "base_size": 2 * arguments.crop_size,
            "mini_batch_size": arguments.batch_size,
            "precision_dtype": "float32" if run.precision == "float32" else "float16",
            "_seed": 1,
        }
        lay_out(Path(folder), arguments.data, settings)
        environment = Environment.read(Path(folder))
        job = load(environment.hyperparameters)
        job = resolve_precision(job, devices)
        mx.random.seed(1)
        np.random.seed(1)
        network = SegmentationNetwork(job.algorithm, job.backbone, job.num_classes)
        initialize_weights(network)
        network.collect_params().reset_ctx(devices)
        network.hybridize()
        trainer = Trainer(network, job, devices)
        loader = Loader(open_samples(environment, "train", job), job, threading.Event())
        told: dict[str, Any] = {"step": [], "seconds": [], "samples": []}
        for epoch in range(2):
            begun = before = time.perf_counter()
            samples, pending = 0, None
            for batch in loader.training_epoch(epoch):
                losses = trainer.step(batch, job.learning_rate)
                samples += len(batch)
                if pending:
                    sum(part.asscalar() for part in pending)
                    now = time.perf_counter()
                    told["step"].append(now - before)
                    before = now
                pending = losses
            mx.nd.waitall()
            told["seconds"].append(time.perf_counter() - begun)
            told["samples"].append(samples)
    told["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return told


def _python(command: list[str]) -> str:
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, cwd=Path(__file__).parent.parent)
    if done.returncode:
        sys.exit(f"{command[:2]} failed:\n{done.stderr[-3000:]}")
    return done.stdout.strip().splitlines()[-1]


def _print_table(found: dict[Run, list[dict[str, float]]]) -> None:
    print(f"{'':26} {'s/step':>8} {'ratio':>6} {'samples/s':>10} {'ratio':>6} {'peak MB':>8} {'ratio':>6}")
    medians = {
        run: {key: statistics.median(each[key] for each in figures) for key in figures[0]}
        for run, figures in found.items()
    }
    for run, figures in medians.items():
        peer = medians[Run("GluonCV", run.devices)]
        title = f"{run.name}, {run.precision}, {run.devices} context{'s' if run.devices > 1 else ''}"
        step, rate, peak = (figures[key] for key in ("step", "rate", "peak_mb"))
        print(
            f"{title:26} {step:8.3f} {step / peer['step']:6.2f} {rate:10.2f} {rate / peer['rate']:6.2f} "
            f"{peak:8.0f} {peak / peer['peak_mb']:6.2f}"
        )


if __name__ == "__main__":
    main()
