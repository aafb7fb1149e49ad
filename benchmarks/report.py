"""A training step while the report of the epoch before is written, beside one while nothing is; epochs by turns.

On the demo's data, resnet-18. Prints the medians of a step's seconds and their ratio; the goal is within 2 %.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from container.environment import Environment, cpu_count

os.environ.setdefault("OMP_NUM_THREADS", str(cpu_count()))

import mxnet as mx
import numpy as np

from container.data.loader import Loader
from container.data.samples import open_samples
from container.hyperparameters import load
from container.mx.networks.segmentation import SegmentationNetwork, initialize_weights
from container.mx.trainer import Trainer
from container.training.report.reporter import Reporter
from local_test.demo_data import HYPERPARAMETERS, write_job, write_samples


def main() -> None:
    """Train epochs of steps, a report being written during every other one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=8, help="epochs of each, by turns (%(default)s)")
    parser.add_argument("--steps", type=int, default=15, help="steps of an epoch (%(default)s)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for channel, count in (("train", 4 * arguments.steps), ("validation", 24)):
            write_samples(root / "input/data", channel, count, (160, 128), seed=0)
        write_job(root, 4 * arguments.steps, {})
        environment = Environment.read(root)
        job = load({**HYPERPARAMETERS, "backbone": "resnet-18", "num_training_samples": 4 * arguments.steps})
        stop = threading.Event()
        loaders = {name: Loader(open_samples(environment, name, job), job, stop) for name in ("train", "validation")}
        network = SegmentationNetwork("fcn", "resnet-18", job.num_classes)
        initialize_weights(network)
        network.hybridize()
        trainer = Trainer(network, job, [mx.cpu()])
        reporter = Reporter(environment, job, loaders, "cpu(0)")
        history: list[dict[str, Any]] = []
        seconds: dict[bool, list[float]] = {True: [], False: []}
        for epoch in range(2 * arguments.epochs + 1):
            told = epoch % 2 == 1
            if told:
                score, images = trainer.evaluate(
                    loaders["validation"].validation_epoch(),
                    job.num_classes,
                    lambda batch, found: reporter.watch(batch.names, batch.images, batch.labels, found),
                )
                figures = {"train_loss": 1.0, "mIOU": score.miou, "pixel_accuracy": score.pixel_accuracy}
                history.append({"epoch": len(history), **figures})
                reporter.epoch(history, score.counts, images)
            for batch in loaders["train"].training_epoch(epoch):
                start = time.perf_counter()
                float(sum(part.asscalar() for part in trainer.step(batch, 1e-4)))
                if epoch:  # the first epoch sets everything up
                    seconds[told].append(time.perf_counter() - start)
            reporter.wait()
        reporter.end(history, "finished")
    medians = {told: float(np.median(each)) for told, each in seconds.items()}
    spread = statistics.stdev(seconds[False]) / medians[False]
    print(
        f"a step: {medians[True]:.4f} s while a report is written, {medians[False]:.4f} s without (spread {spread:.0%})"
    )
    print(f"ratio   {medians[True] / medians[False]:.3f}")


if __name__ == "__main__":
    main()
