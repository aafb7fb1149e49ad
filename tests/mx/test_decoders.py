"""The small backbones' decoders: GluonCV's layers by name, as wide as the backbone."""

from __future__ import annotations

import mxnet as mx
import pytest
from gluoncv.model_zoo import segbase
from mxnet.gluon.contrib.nn import SyncBatchNorm

from container.mx.networks.segmentation import SegmentationNetwork, initialize_weights

CLASSES = 7
AUXILIARY = {"auxlayer.block.0.weight": (64, 256, 3, 3), "auxlayer.block.4.weight": (CLASSES, 64, 1, 1)}
CONVOLUTIONS: dict[str, dict[str, tuple[int, ...]]] = {
    "fcn": {"head.block.0.weight": (128, 512, 3, 3), "head.block.4.weight": (CLASSES, 128, 1, 1)},
    "psp": {
        **{f"head.psp.conv{number}.0.weight": (128, 512, 1, 1) for number in range(1, 5)},
        "head.block.0.weight": (128, 1024, 3, 3),
        "head.block.4.weight": (CLASSES, 128, 1, 1),
    },
    "deeplab": {
        "head.aspp.concurent.0.0.weight": (256, 512, 1, 1),
        **{f"head.aspp.concurent.{number}.0.weight": (256, 512, 3, 3) for number in range(1, 4)},
        "head.aspp.concurent.4.gap.1.weight": (256, 512, 1, 1),
        "head.aspp.project.0.weight": (256, 1280, 1, 1),
        "head.block.0.weight": (256, 256, 3, 3),
        "head.block.4.weight": (CLASSES, 256, 1, 1),
    },
}


@pytest.mark.parametrize("backbone", ["resnet-18", "resnet-34"])
@pytest.mark.parametrize("algorithm", list(CONVOLUTIONS))
def test_small_decoders_have_gluoncv_names_and_their_own_widths(algorithm: str, backbone: str) -> None:
    network = SegmentationNetwork(algorithm, backbone, CLASSES)
    initialize_weights(network)
    parameters = network._collect_params_with_prefix()
    heads = {name: value.shape for name, value in parameters.items() if name.startswith(("head.", "auxlayer."))}
    kernels = {name: shape for name, shape in heads.items() if name.endswith("weight")}
    assert kernels == CONVOLUTIONS[algorithm] | AUXILIARY
    assert all(parameters[name].lr_mult == 10 for name in heads)
    large = SegmentationNetwork(algorithm, "resnet-50", CLASSES)._collect_params_with_prefix()
    fast = {name for name, value in large.items() if value.lr_mult == 10}
    assert fast == {name for name in large if name.startswith(("head.", "auxlayer."))}
    assert set(heads) == {name for name in large if name.startswith(("head.", "auxlayer."))}


def test_encoder_equals_the_dilated_gluoncv_encoder() -> None:
    network = SegmentationNetwork("fcn", "resnet-18", CLASSES)
    initialize_weights(network)
    theirs = segbase.SegBaseModel(CLASSES, aux=True, backbone="resnet18", pretrained_base=False)
    names = set(theirs._collect_params_with_prefix())
    assert names == {
        name for name in network._collect_params_with_prefix() if not name.startswith(("head.", "auxlayer."))
    }
    _, stage3, stage4 = network.encode(mx.nd, mx.nd.zeros((1, 64, 40, 3), dtype="uint8"))
    assert (stage3.shape, stage4.shape) == ((1, 256, 8, 5), (1, 512, 8, 5))


@pytest.mark.parametrize("algorithm", list(CONVOLUTIONS))
def test_all_batch_norms_are_synchronized(algorithm: str) -> None:
    network = SegmentationNetwork(
        algorithm, "resnet-18", CLASSES, norm_layer=SyncBatchNorm, norm_kwargs={"num_devices": 2}
    )
    kinds: list[type] = []
    network.apply(lambda block: kinds.append(type(block)))
    assert SyncBatchNorm in kinds and mx.gluon.nn.BatchNorm not in kinds
