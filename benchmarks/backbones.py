"""CPU time of each backbone and of Fast-SCNN: `python -m benchmarks.backbones [ALGORITHM]`.

Prints the size of the ONNX model, the median CPU seconds (sum of all cores) of a 480×480 mask (OpenVINO) and of a
training iteration (MXNet, batch 4, crop 240), and the speed relative to resnet-50. CPU seconds depend little on other
programs. The weights are random.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from container.environment import cpu_count

os.environ.setdefault("OMP_NUM_THREADS", str(cpu_count()))  # before MXNet is imported, whose default is half
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # waiting threads use no CPU time

import mxnet as mx

from benchmarks.support.measure import interleave, medians, timed
from container.data.batches import Batch
from container.engines.openvino import OpenVinoEngine
from container.hyperparameters import load
from container.mx.export import export_onnx
from container.mx.networks.architectures import create_network
from container.mx.networks.segmentation import initialize_weights
from container.mx.trainer import Trainer

BASELINE, FAST = "resnet-50", "fastscnn"
NAMES = (BASELINE, "resnet-34", "resnet-18", FAST)


def prepare(algorithm: str, backbone: str, graph: Path) -> tuple[Callable[[], object], Callable[[], object]]:
    """Write the ONNX model, and return functions that run a mask and a training iteration."""
    settings = {"algorithm": FAST} if backbone == FAST else {"algorithm": algorithm, "backbone": backbone}
    job = load({"num_classes": 21, "num_training_samples": 4, **settings})
    network = create_network(num_classes=21, **settings)
    initialize_weights(network)
    export_onnx(network, graph)
    engine = OpenVinoEngine(graph, threads=cpu_count())
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (480, 480, 3), np.uint8)
    batch = Batch(rng.integers(0, 256, (4, 240, 240, 3), np.uint8), rng.integers(0, 21, (4, 240, 240)).astype(np.uint8))
    network.hybridize()
    trainer = Trainer(network, job, [mx.cpu()])
    return lambda: engine.mask(image), lambda: [loss.asscalar() for loss in trainer.step(batch, 1e-4)]


def main() -> None:
    """Measure, and print a line per backbone."""
    parser = argparse.ArgumentParser(description="Compare the CPU time of the backbones.")
    parser.add_argument("algorithm", nargs="?", default="fcn", choices=["fcn", "psp", "deeplab"])
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    variants: dict[tuple[str, str], Callable[[], float]] = {}
    sizes = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name in NAMES:
            graph = Path(scratch) / f"{name}.onnx"
            mask, iteration = prepare(arguments.algorithm, name, graph)
            variants[name, "mask"] = timed(mask, time.process_time)
            variants[name, "iteration"] = timed(iteration, time.process_time)
            sizes[name] = graph.stat().st_size / 1e6
        seconds = medians(interleave(variants, arguments.rounds, warmup=1))
    for name in NAMES:
        results = [
            f"{part} {seconds[name, part]:.3f} s ({seconds[BASELINE, part] / seconds[name, part]:.1f} ×)"
            for part in ("mask", "iteration")
        ]
        print(f"{name:11} {sizes[name]:5.1f} MB, {', '.join(results)}")


if __name__ == "__main__":
    main()
