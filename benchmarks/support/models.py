"""Model directories with random weights."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from container.artifact import model_directory


def write_model(model: Path, algorithm: str = "fcn", backbone: str = "resnet-50", classes: int = 21) -> None:
    """Write a model directory with random weights and its ONNX model."""
    from container.mx.export import export_onnx
    from container.mx.networks.segmentation import SegmentationNetwork, initialize_weights

    model.mkdir(exist_ok=True)
    settings = {"num_classes": classes, "algorithm": algorithm, "backbone": backbone}
    model_directory.write_json(model / model_directory.HYPERPARAMETERS, settings)
    network = SegmentationNetwork(algorithm, backbone, classes)
    initialize_weights(network)
    model_directory.write_weights(model / model_directory.BEST_WEIGHTS, network.save_parameters)
    export_onnx(network, model / model_directory.GRAPH)


def write_int8_model(model: Path) -> None:
    """Add an int8 model, calibrated on random images."""
    from container.engines.quantize import quantize_onnx

    images = np.random.default_rng(0).integers(0, 256, (4, 240, 240, 3)).astype(np.uint8)
    quantize_onnx(model / model_directory.GRAPH, model / model_directory.INT8_GRAPH, images)


@contextlib.contextmanager
def base_directory(existing: Path | None = None) -> Iterator[Path]:
    """Return the SAGEMAKER_BASE_DIR of a server: the existing one, or a temporary one with a random fcn/resnet-50."""
    if existing is not None:
        yield existing
        return
    with tempfile.TemporaryDirectory() as folder:
        write_model(Path(folder, "model"))
        yield Path(folder)
