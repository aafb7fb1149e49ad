"""Time of a response with class probabilities, 21×375×500: `python -m benchmarks.probabilities`.

Interleaved: inference and one copy of its output; a request for application/x-recordio-protobuf to this server; and
inference followed by filling protobuf value by value.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np

from benchmarks.support.images import HEIGHT, WIDTH, make_image
from benchmarks.support.measure import interleave, medians, print_ratios, timed
from benchmarks.support.models import base_directory
from benchmarks.support.servers import SERVE, compile_record, running
from container.codecs.images import decode_image
from container.engines.openvino import OpenVinoEngine
from container.environment import cpu_count

INFERENCE = "inference and a copy"


def main() -> None:
    """Measure, and print a line per variant."""
    parser = argparse.ArgumentParser(description="Time responses with class probabilities.")
    parser.add_argument("--rounds", type=int, default=15, help="rounds per variant, interleaved (%(default)s)")
    arguments = parser.parse_args()
    image = make_image(HEIGHT, WIDTH)
    with base_directory() as base, running(SERVE, base) as server:
        compile_record(base)
        sys.path.insert(0, str(base))
        from record_pb2 import Record  # type: ignore[import-not-found]

        engine = OpenVinoEngine(base / "model/model.onnx", threads=cpu_count())

        def infer() -> np.ndarray:
            return engine.probabilities(decode_image(image))

        def fill() -> bytes:
            record = Record()
            for value in infer().ravel():
                record.features["target"].float32_tensor.values.append(float(value))
            return bytes(record.SerializeToString())

        variants = {
            INFERENCE: timed(lambda: infer().copy()),
            "this server": lambda: server.request("POST", "/invocations", image, "application/x-recordio-protobuf"),
            "inference and protobuf, value by value": timed(fill),
        }
        print_ratios(medians(interleave(variants, arguments.rounds, warmup=1)), "s", INFERENCE)


if __name__ == "__main__":
    main()
