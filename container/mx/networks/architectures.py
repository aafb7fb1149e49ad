"""Model architecture per algorithm name."""

from __future__ import annotations

from typing import Any

from container.mx.networks.fastscnn import ALGORITHM, FastNetwork
from container.mx.networks.segmentation import SegmentationNetwork


def create_network(algorithm: str, num_classes: int, backbone: str | None = None, **norm: Any) -> SegmentationNetwork:
    """Create a model without weights. The arguments are the settings that `read_model_settings` returns.

    `norm` contains `norm_layer` and `norm_kwargs` of GluonCV.
    """
    if algorithm == ALGORITHM:
        return FastNetwork(num_classes, **norm)
    assert backbone is not None
    return SegmentationNetwork(algorithm, backbone, num_classes, **norm)
