"""The training loop compared with the loop of the GluonCV script: `python -m benchmarks.training`.

Both train the same model from the same weights on the same files, from decoding to the update, in separate processes,
interleaved: GluonCV in float32, and this container in float32 and bfloat16 (with AVX-512), on one and two CPU devices.
The first iterations, which build the graph, do not count. Prints seconds per iteration, samples/s, peak memory, and
ratios to GluonCV.

To try it: --images 16 --crop-size 64 --rounds 1
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import resource
import statistics
import sys
import tempfile
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.support.job_directory import write_job
from benchmarks.support.measure import interleave, run_python
from benchmarks.support.synthetic_data import NUM_CLASSES, write_data_set
from container.environment import processor_has

_WARMUP = 2  # iterations
GLUONCV, THIS = "GluonCV", "this container"


@dataclasses.dataclass(frozen=True)
class Variant:
    """One configuration of training."""

    program: str
    devices: int
    precision: str = "float32"


def main() -> None:
    """Measure all variants, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="directory with train and train_annotation (default: synthetic data)")
    parser.add_argument("--num-classes", type=int, default=NUM_CLASSES)
    parser.add_argument("--images", type=int, default=64, help="of the synthetic data (%(default)s)")
    parser.add_argument("--algorithm", default="fcn")
    parser.add_argument("--backbone", default="resnet-18")
    parser.add_argument("--crop-size", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--variant", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.variant:
        print(json.dumps(_train(Variant(**json.loads(arguments.variant)), arguments)))
        return
    variants = [Variant(program, devices) for devices in (1, 2) for program in (GLUONCV, THIS)]
    if processor_has("avx512bw"):
        variants += [Variant(THIS, devices, "bfloat16") for devices in (1, 2)]
    else:
        print("bfloat16 is not measured: it needs AVX-512", file=sys.stderr)
    with tempfile.TemporaryDirectory() as scratch:
        if arguments.data is None:
            arguments.data = Path(scratch)
            write_data_set(arguments.data, arguments.images, 1)
        results = interleave({variant: partial(_measure, variant, arguments) for variant in variants}, arguments.rounds)
    _print_table(results)


def _measure(variant: Variant, arguments: argparse.Namespace) -> dict[str, float]:
    """Train two epochs in a child process."""
    if variant.program == THIS:
        names = ("data", "num_classes", "algorithm", "backbone", "crop_size", "batch_size")
        options = [f"--{name.replace('_', '-')}={getattr(arguments, name)}" for name in names]
        options += [f"--variant={json.dumps(dataclasses.asdict(variant))}"]
        return _summarize(json.loads(run_python(["-m", "benchmarks.training", *options])))
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
        "devices": variant.devices,
    }
    command = ["-m", "benchmarks.support.gluoncv_script", str(arguments.data), os.devnull, json.dumps(recipe)]
    return _summarize(json.loads(run_python(command)))


def _summarize(result: dict[str, Any]) -> dict[str, float]:
    return {
        "iteration": statistics.median(result["iteration"][_WARMUP:] or result["iteration"]),
        "rate": result["samples"][-1] / result["seconds"][-1],
        "peak_mb": result["peak_mb"],
    }


def _train(variant: Variant, arguments: argparse.Namespace) -> dict[str, Any]:
    """Train two epochs as `TrainingLoop` does, with one iteration in progress while the next batch is prepared."""
    import mxnet as mx
    import numpy as np

    from container.data.loader import Loader
    from container.data.samples import open_samples
    from container.environment import Environment
    from container.hyperparameters import load
    from container.mx.devices import resolve_precision
    from container.mx.networks.segmentation import SegmentationNetwork, initialize_weights
    from container.mx.trainer import Trainer

    devices = [mx.cpu(number) for number in range(variant.devices)]
    settings = {
        "num_classes": arguments.num_classes,
        "algorithm": arguments.algorithm,
        "backbone": arguments.backbone,
        "crop_size": arguments.crop_size,
        "base_size": 2 * arguments.crop_size,
        "mini_batch_size": arguments.batch_size,
        "precision_dtype": "float32" if variant.precision == "float32" else "float16",
        "_seed": 1,
    }
    with tempfile.TemporaryDirectory() as folder:
        write_job(Path(folder), arguments.data, settings)
        environment = Environment.read(Path(folder))
        job = resolve_precision(load(environment.hyperparameters), devices)
        mx.random.seed(1)
        np.random.seed(1)
        network = SegmentationNetwork(job.algorithm, job.backbone, job.num_classes)
        initialize_weights(network)
        network.collect_params().reset_ctx(devices)
        network.hybridize()
        trainer = Trainer(network, job, devices)
        loader = Loader(open_samples(environment, "train", job), job, threading.Event())
        result: dict[str, Any] = {"iteration": [], "seconds": [], "samples": []}
        for epoch in range(2):
            start = before = time.perf_counter()
            samples, pending = 0, None
            for batch in loader.training_epoch(epoch):
                losses = trainer.step(batch, job.learning_rate)
                samples += len(batch)
                if pending:
                    sum(part.asscalar() for part in pending)
                    now = time.perf_counter()
                    result["iteration"].append(now - before)
                    before = now
                pending = losses
            mx.nd.waitall()
            result["seconds"].append(time.perf_counter() - start)
            result["samples"].append(samples)
    result["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return result


def _print_table(results: dict[Variant, list[dict[str, float]]]) -> None:
    print(f"{'':36} {'s/iteration':>11} {'ratio':>6} {'samples/s':>10} {'ratio':>6} {'peak MB':>8} {'ratio':>6}")
    medians = {
        variant: {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        for variant, runs in results.items()
    }
    for variant, values in medians.items():
        baseline = medians[Variant(GLUONCV, variant.devices)]
        title = f"{variant.program}, {variant.precision}, {variant.devices} device(s)"
        cells = [(values[key], values[key] / baseline[key]) for key in ("iteration", "rate", "peak_mb")]
        (iteration, ratio), (rate, rate_ratio), (peak, peak_ratio) = cells
        print(f"{title:36} {iteration:11.3f} {ratio:6.2f} {rate:10.2f} {rate_ratio:6.2f} {peak:8.0f} {peak_ratio:6.2f}")


if __name__ == "__main__":
    main()
