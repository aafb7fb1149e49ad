"""What the tests of engines share."""

from __future__ import annotations

from pathlib import Path

import pytest

from container.mx.export import export_onnx
from container.mx.networks.segmentation import SegmentationNetwork


@pytest.fixture(scope="module")
def graph(network: SegmentationNetwork, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The exported graph of the module's own `network`."""
    path = tmp_path_factory.mktemp("graph") / "model.onnx"
    export_onnx(network, path)
    return path
