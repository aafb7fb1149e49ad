"""Times one image through the engines, interleaved in one process: `python -m benchmarks.engines [MODEL_DIR]`.

Prints the median seconds per mask of MXNet (hybridized, all cores) and of OpenVINO in each precision that the
processor and the archive offer. Without MODEL_DIR the model is fcn/resnet-50 with random weights, quantized too.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from container.environment import cpu_count

os.environ.setdefault("OMP_NUM_THREADS", str(cpu_count()))  # before MXNet is imported, which would take half

from container.artifact import model_directory
from container.engines.mxnet import MXNetEngine
from container.engines.onnx_model import prepare_model
from container.engines.openvino import OpenVinoEngine
from container.engines.protocol import Engine
from container.engines.quantize import quantize_onnx
from container.errors import ClientError
from container.mx.export import export_onnx
from container.mx.networks.segmentation import SegmentationNetwork, initialize_weights


def make_model(model_dir: Path) -> Path:
    """Write a model with random weights, its graph and its int8 form."""
    network = SegmentationNetwork("fcn", "resnet-50", 21)
    initialize_weights(network)
    model_directory.write_json(model_dir / model_directory.HYPERPARAMETERS, {"num_classes": 21})
    model_directory.write_weights(model_dir / model_directory.BEST_WEIGHTS, network.save_parameters)
    export_onnx(network, model_dir / model_directory.GRAPH)
    images = np.random.default_rng(0).integers(0, 256, (4, 240, 240, 3)).astype(np.uint8)
    quantize_onnx(model_dir / model_directory.GRAPH, model_dir / model_directory.INT8_GRAPH, images)
    return model_dir


def load_engines(model_dir: Path) -> dict[str, Engine]:
    """Load every engine that can answer here."""
    engines: dict[str, Engine] = {"mxnet float32": MXNetEngine(model_dir)}
    with tempfile.TemporaryDirectory() as scratch:
        graph = prepare_model(model_dir, "auto", Path(scratch))
        engines["openvino float32"] = OpenVinoEngine(graph, "float32", threads=cpu_count())
        try:
            engines["openvino bfloat16"] = OpenVinoEngine(graph, "bfloat16", threads=cpu_count())
        except ClientError as error:
            print(error)
    if (model_dir / model_directory.INT8_GRAPH).is_file():
        engines["openvino int8"] = OpenVinoEngine(model_dir / model_directory.INT8_GRAPH, "int8", threads=cpu_count())
    return engines


def measure(engines: Mapping[str, Engine], image: np.ndarray, rounds: int) -> dict[str, list[float]]:
    """Return the seconds of every answer after the first."""
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(rounds + 1):
        for name, engine in engines.items():
            start = time.perf_counter()
            engine.mask(image)
            seconds[name].append(time.perf_counter() - start)
    return {name: values[1:] for name, values in seconds.items()}


def main() -> None:
    """Print a table: engine, median, fastest."""
    parser = argparse.ArgumentParser(description="Time one image through every engine that can answer here.")
    parser.add_argument("model_dir", type=Path, nargs="?")
    parser.add_argument("--size", type=int, nargs=2, default=(480, 480), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    image = np.random.default_rng(0).integers(0, 256, (*arguments.size, 3)).astype(np.uint8)
    with tempfile.TemporaryDirectory() as made:
        engines = load_engines(arguments.model_dir or make_model(Path(made)))
    for name, values in measure(engines, image, arguments.rounds).items():
        print(f"{name:20} median {statistics.median(values):.3f} s, fastest {min(values):.3f} s")


if __name__ == "__main__":
    main()
