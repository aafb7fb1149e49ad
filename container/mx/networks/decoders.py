"""GluonCV decoders for resnet-18 and resnet-34, whose last stages have 256 and 512 channels.

The GluonCV classes support only the large backbones. These decoders have the same layers with the same names, so the
same code and the same parameter file format apply to all backbones. Only the number of channels differs.
"""

from __future__ import annotations

from typing import Any

from gluoncv.model_zoo.deeplabv3 import _ASPP
from gluoncv.model_zoo.fcn import _FCNHead
from gluoncv.model_zoo.pspnet import _PyramidPooling
from gluoncv.model_zoo.segbase import SegBaseModel
from mxnet import gluon
from mxnet.gluon import nn

_STAGE3, _STAGE4 = 256, 512  # channels
_ATROUS_RATES, _ATROUS_CHANNELS = [12, 24, 36], 256


def build_small(algorithm: str, backbone: str, num_classes: int, **norm: Any) -> gluon.HybridBlock:
    """Return the GluonCV base model of `resnet18` or `resnet34` with the parts `head` and `auxlayer`."""
    model = SegBaseModel(num_classes, aux=True, backbone=backbone, pretrained_base=False, **norm)
    with model.name_scope():
        model.head = _HEADS[algorithm](num_classes, **norm)
        model.auxlayer = _FCNHead(_STAGE3, num_classes, **norm)
    return model


class _PyramidHead(gluon.HybridBlock):
    """Decoder of PSPNet: concatenates the features and four pooled versions, which have as many channels in total."""

    def __init__(self, num_classes: int, **norm: Any) -> None:
        super().__init__()
        with self.name_scope():
            self.psp = _PyramidPooling(_STAGE4, **_complete(norm))
            self.block = _classifier(2 * _STAGE4, _STAGE4 // 4, num_classes, norm)


class _AtrousHead(gluon.HybridBlock):
    """Decoder of DeepLabV3: five branches and their projection, with as many channels as for the large backbones."""

    def __init__(self, num_classes: int, **norm: Any) -> None:
        super().__init__()
        with self.name_scope():
            self.aspp = _ASPP(_STAGE4, _ATROUS_RATES, **_complete(norm))
            self.block = _classifier(_ATROUS_CHANNELS, _ATROUS_CHANNELS, num_classes, norm)


def _local_head(num_classes: int, **norm: Any) -> gluon.HybridBlock:
    return _FCNHead(_STAGE4, num_classes, **norm)


def _classifier(channels: int, inner: int, num_classes: int, norm: dict[str, Any]) -> nn.HybridSequential:
    """Return the last layers of every decoder, with the GluonCV numbers."""
    settings = _complete(norm)
    block = nn.HybridSequential()
    with block.name_scope():
        block.add(nn.Conv2D(inner, 3, padding=1, use_bias=False, in_channels=channels))
        block.add(settings["norm_layer"](in_channels=inner, **settings["norm_kwargs"]))
        block.add(nn.Activation("relu"))
        block.add(nn.Dropout(0.1))
        block.add(nn.Conv2D(num_classes, 1, in_channels=inner))
    return block


def _complete(norm: dict[str, Any]) -> dict[str, Any]:
    return {"norm_layer": nn.BatchNorm, "norm_kwargs": {}, **norm}


_HEADS = {"fcn": _local_head, "psp": _PyramidHead, "deeplab": _AtrousHead}
