"""`python -m container.mx.convert MODEL_DIR OUT.onnx`: export an ONNX model from model artifacts.

It runs in a separate process, so that the server never loads MXNet.
"""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path

import mxnet as mx

from container.artifact import model_directory
from container.errors import ClientError
from container.mx.export import export_onnx
from container.mx.networks.architectures import create_network
from container.mx.networks.segmentation import load_weights


def convert(model_dir: Path, target: Path) -> None:
    """Write the ONNX model of the best weights in `model_dir`; raises ClientError that names the invalid file."""
    network = create_network(**model_directory.read_model_settings(model_dir))
    network.windows = model_directory.read_windows(model_dir)
    load_weights(network, model_dir / model_directory.BEST_WEIGHTS, [mx.cpu()])
    export_onnx(network, target)


def main() -> None:
    """Run the command; for an unusable model, write one line to stderr and exit with status 1."""
    parser = argparse.ArgumentParser(description="Write the ONNX model of an extracted model.tar.gz.")
    parser.add_argument("model_dir", type=Path, help="directory with hyperparams.json and model_best.params")
    parser.add_argument("target", type=Path, help="the .onnx file to write")
    arguments = parser.parse_args()
    with contextlib.suppress(OSError):  # if memory runs out, the kernel kills this process instead of its parent
        Path("/proc/self/oom_score_adj").write_text("1000")
    try:
        convert(arguments.model_dir, arguments.target)
    except ClientError as error:
        raise SystemExit(f"ClientError: {error}") from error


if __name__ == "__main__":
    main()
