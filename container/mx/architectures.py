"""Which network an algorithm's name stands for."""

from __future__ import annotations

from typing import Any

from container.mx.fastscnn import ALGORITHM, FastNetwork
from container.mx.network import SegmentationNetwork


def create_network(algorithm: str, num_classes: int, backbone: str | None = None, **norm: Any) -> SegmentationNetwork:
    """Create a network without weights: what `container.artifacts.read_model_settings` says of it are its arguments.

    `norm` are GluonCV's `norm_layer` and `norm_kwargs`.
    """
    if algorithm == ALGORITHM:
        return FastNetwork(num_classes, **norm)
    assert backbone is not None
    return SegmentationNetwork(algorithm, backbone, num_classes, **norm)
