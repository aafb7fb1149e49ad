"""`python -m container.mx.convert MODEL_DIR OUT.onnx`: make the ONNX graph of an archive that has none.

A process of its own, so that the one that answers requests never holds MXNet.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import mxnet as mx

from container import artifacts
from container.errors import ClientError
from container.mx.export import translate, write_model
from container.mx.network import SegmentationNetwork


def convert(model_dir: Path, target: Path) -> None:
    """Write the graph of the best weights in `model_dir`; raises ClientError that names the file at fault."""
    settings = artifacts.read_model_settings(model_dir)
    network = SegmentationNetwork(settings["algorithm"], settings["backbone"], settings["num_classes"])
    weights = model_dir / artifacts.BEST_WEIGHTS
    try:
        network.load_parameters(str(weights), ctx=mx.cpu(), allow_missing=True, cast_dtype=True)
        model = translate(network)  # raises for what is missing; the auxiliary head may be, it is training's alone
    except Exception as error:  # MXNetError, AssertionError, ValueError and RuntimeError, by what differs
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        raise ClientError(f"{weights} does not fit {settings}: {reason}") from error
    write_model(model, target)


def main() -> None:
    """Convert what the command line names; an unusable model is one line on stderr and exit status 1."""
    parser = argparse.ArgumentParser(description="Write the ONNX graph of an unpacked model.tar.gz.")
    parser.add_argument("model_dir", type=Path, help="directory with hyperparams.json and model_best.params")
    parser.add_argument("target", type=Path, help="the .onnx file to write")
    arguments = parser.parse_args()
    try:
        convert(arguments.model_dir, arguments.target)
    except ClientError as error:
        raise SystemExit(f"ClientError: {error}") from error


if __name__ == "__main__":
    main()
