"""Times the backbones and Fast-SCNN side by side, in one process: `python -m benchmarks.backbones [ALGORITHM]`.

Prints the graph's size and the median CPU seconds of a 480×480 mask (OpenVINO, the processor's own precision) and of a
training step (MXNet, batch 4, crop 240), all cores added up, and resnet-50's divided by each. CPU seconds, so that what
else the machine does matters little. The weights are random.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from container.environment import cpu_count

os.environ.setdefault("OMP_NUM_THREADS", str(cpu_count()))  # before MXNet is imported, which would take half
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # waiting is no work

import mxnet as mx

from container.data.batches import Batch
from container.engines.openvino import OpenVinoEngine
from container.hyperparameters import load
from container.mx.export import export_onnx
from container.mx.networks.architectures import create_network
from container.mx.networks.segmentation import initialize_weights
from container.mx.trainer import Trainer

BACKBONES = ("resnet-50", "resnet-34", "resnet-18")
FAST = "fastscnn"


def prepare(algorithm: str, backbone: str, graph: Path) -> tuple[Callable[[], object], Callable[[], object]]:
    """Return what answers a request, and what makes a training step; writes the graph."""
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
    """Print a row per backbone, and Fast-SCNN's."""
    parser = argparse.ArgumentParser(description="Time a request and a training step of every backbone.")
    parser.add_argument("algorithm", nargs="?", default="fcn", choices=["fcn", "psp", "deeplab"])
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        graphs = {name: Path(scratch) / f"{name}.onnx" for name in (*BACKBONES, FAST)}
        works = {name: prepare(arguments.algorithm, name, graph) for name, graph in graphs.items()}
        sizes = {name: graph.stat().st_size / 1e6 for name, graph in graphs.items()}
        seconds: dict[tuple[str, int], list[float]] = {(backbone, kind): [] for backbone in works for kind in (0, 1)}
        for _ in range(arguments.rounds + 1):
            for (backbone, kind), values in seconds.items():
                start = time.process_time()
                works[backbone][kind]()
                values.append(time.process_time() - start)
    medians = {key: statistics.median(values[1:]) for key, values in seconds.items()}
    for backbone in graphs:
        request, step = medians[backbone, 0], medians[backbone, 1]
        times = medians[BACKBONES[0], 0] / request, medians[BACKBONES[0], 1] / step
        print(
            f"{backbone:11} {sizes[backbone]:5.1f} MB, request {request:.3f} s ({times[0]:.1f}), "
            f"training step {step:.2f} s ({times[1]:.1f})"
        )


if __name__ == "__main__":
    main()
