"""Times one image through the engines, interleaved in one process: `python benchmarks/engines.py MODEL_DIR`.

Prints the median seconds per mask of MXNet (hybridized, all cores) and of OpenVINO in each precision that the
processor and the archive offer. Set OMP_NUM_THREADS to the number of cores: MXNet takes half of them by itself.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from container import artifacts
from container.engines.mxnet import MXNetEngine
from container.engines.openvino import OpenVinoEngine, prepare_graph
from container.engines.protocol import Engine
from container.environment import cpu_count
from container.errors import ClientError


def load_engines(model_dir: Path) -> dict[str, Engine]:
    """Load every engine that can answer here."""
    engines: dict[str, Engine] = {"mxnet float32": MXNetEngine(model_dir)}
    with tempfile.TemporaryDirectory() as scratch:
        graph = prepare_graph(model_dir, "auto", Path(scratch))
        engines["openvino float32"] = OpenVinoEngine(graph, "float32", threads=cpu_count())
        try:
            engines["openvino bfloat16"] = OpenVinoEngine(graph, "bfloat16", threads=cpu_count())
        except ClientError as error:
            print(error)
    if (model_dir / artifacts.INT8_GRAPH).is_file():
        engines["openvino int8"] = OpenVinoEngine(model_dir / artifacts.INT8_GRAPH, "int8", threads=cpu_count())
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
    parser.add_argument("model_dir", type=Path)
    parser.add_argument("--size", type=int, nargs=2, default=(480, 480), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    image = np.random.default_rng(0).integers(0, 256, (*arguments.size, 3)).astype(np.uint8)
    for name, values in measure(load_engines(arguments.model_dir), image, arguments.rounds).items():
        print(f"{name:20} median {statistics.median(values):.3f} s, fastest {min(values):.3f} s")


if __name__ == "__main__":
    main()
