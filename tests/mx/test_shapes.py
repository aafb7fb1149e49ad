"""The names and shapes that weight files are compared with are those of the networks themselves."""

from __future__ import annotations

import pytest

from container.mx.networks.architectures import create_network
from container.mx.networks.segmentation import initialize_weights
from container.mx.weights.shapes import encoder_shapes, model_shapes


@pytest.mark.parametrize(
    ("algorithm", "backbone"),
    [
        ("fcn", "resnet-101"),
        ("psp", "resnet-50"),
        ("deeplab", "resnet-50"),
        ("fcn", "resnet-34"),
        ("psp", "resnet-18"),
        ("deeplab", "resnet-18"),
        ("fastscnn", None),
    ],
)
def test_every_parameter_has_the_shape_that_is_written_down(algorithm: str, backbone: str | None) -> None:
    network = create_network(algorithm, 7, backbone)
    initialize_weights(network)
    shapes = {name: parameter.shape for name, parameter in network._collect_params_with_prefix().items()}
    assert model_shapes(algorithm, backbone, 7) == shapes
    if backbone:
        heads = ("head.", "auxlayer.")
        assert encoder_shapes(backbone) == {name: it for name, it in shapes.items() if not name.startswith(heads)}
