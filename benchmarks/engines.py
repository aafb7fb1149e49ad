"""Time of a mask with each engine, interleaved in one process: `python -m benchmarks.engines [MODEL_DIR]`.

MXNet (hybridized, all CPUs) and OpenVINO in each precision that the processor and the model support. Without MODEL_DIR,
the model is fcn/resnet-50 with random weights, also in int8.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from functools import partial
from pathlib import Path

import numpy as np

from container.environment import cpu_count

os.environ.setdefault("OMP_NUM_THREADS", str(cpu_count()))  # before MXNet is imported, whose default is half

from benchmarks.support.measure import interleave, medians, print_ratios, timed
from benchmarks.support.models import write_int8_model, write_model
from container.artifact import model_directory
from container.engines.mxnet import MXNetEngine
from container.engines.onnx_model import prepare_model
from container.engines.openvino import OpenVinoEngine
from container.engines.protocol import Engine
from container.errors import ClientError

BASELINE = "MXNet float32"


def load_engines(model_dir: Path) -> dict[str, Engine]:
    """Load every engine and precision that this machine supports."""
    engines: dict[str, Engine] = {BASELINE: MXNetEngine(model_dir)}
    with tempfile.TemporaryDirectory() as scratch:
        graph = prepare_model(model_dir, "auto", Path(scratch))
        for precision in ("float32", "bfloat16"):
            try:
                engines[f"OpenVINO {precision}"] = OpenVinoEngine(graph, precision, threads=cpu_count())
            except ClientError as error:
                print(error)
    if (model_dir / model_directory.INT8_GRAPH).is_file():
        engines["OpenVINO int8"] = OpenVinoEngine(model_dir / model_directory.INT8_GRAPH, "int8", threads=cpu_count())
    return engines


def main() -> None:
    """Measure, and print a line per engine."""
    parser = argparse.ArgumentParser(description="Time a mask with each engine.")
    parser.add_argument("model_dir", type=Path, nargs="?")
    parser.add_argument("--size", type=int, nargs=2, default=(480, 480), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    image = np.random.default_rng(0).integers(0, 256, (*arguments.size, 3)).astype(np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        if arguments.model_dir is None:
            write_model(Path(folder))
            write_int8_model(Path(folder))
        engines = load_engines(arguments.model_dir or Path(folder))
    variants = {name: timed(partial(engine.mask, image)) for name, engine in engines.items()}
    print_ratios(medians(interleave(variants, arguments.rounds, warmup=1)), "s", BASELINE)


if __name__ == "__main__":
    main()
