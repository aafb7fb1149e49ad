"""What an answer of class probabilities, 21×375×500, costs beside the inference: `python -m benchmarks.probabilities`.

By turns: the inference alone and one copy of its result; a request for application/x-recordio-protobuf to our server,
from its first byte sent to the last received; and, of the alternative, only the filling of protobuf value by value,
after the same inference. Prints medians and their ratios to the first.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.serving import Server, make_images, make_model
from container.codecs.images import decode_image
from container.engines.openvino import OpenVinoEngine
from container.environment import cpu_count

HEIGHT, WIDTH = 375, 500


def measure(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Return the median seconds of each call."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values[1:]) for name, values in seconds.items()}


def main() -> None:
    """Measure, and print a line for each."""
    parser = argparse.ArgumentParser(description="Time answers of class probabilities.")
    parser.add_argument("--rounds", type=int, default=15, help="turns of each (%(default)s)")
    arguments = parser.parse_args()
    (photograph,) = make_images(1, HEIGHT, WIDTH)
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as running:
        root = Path(folder)
        make_model(root, root)
        sys.path.insert(0, folder)
        from record_pb2 import Record  # type: ignore[import-not-found]

        engine = OpenVinoEngine(root / "model" / "model.onnx", threads=cpu_count())
        server = Server([sys.executable, "serve"], root, root)
        running.callback(server.process.wait)
        running.callback(server.process.terminate)

        def infer() -> np.ndarray:
            return engine.probabilities(decode_image(photograph))

        def fill() -> bytes:
            record = Record()
            for value in infer().ravel():
                record.features["target"].float32_tensor.values.append(float(value))
            return bytes(record.SerializeToString())

        medians = measure(
            {
                "inference and a copy": lambda: infer().copy(),
                "our server": lambda: server.ask("POST", "/invocations", photograph, "application/x-recordio-protobuf"),
                "inference and protobuf, value by value": fill,
            },
            arguments.rounds,
        )
    least = next(iter(medians.values()))
    for name, median in medians.items():
        print(f"{name:40} {median:.3f} s, {median / least:.2f}x (median of {arguments.rounds})")


if __name__ == "__main__":
    main()
