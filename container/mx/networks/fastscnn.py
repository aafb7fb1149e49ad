"""Fast-SCNN (Poudel et al., 2019) with GluonCV layers and names, for any input size.

This architecture has no ResNet: it has 1.1 million parameters, and an eighth of the input size after 3 convolutions.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

import mxnet as mx
from gluoncv.model_zoo import fastscnn
from mxnet import gluon
from mxnet.gluon import nn

from container.mx.networks.segmentation import SegmentationNetwork, normalize, pool_pyramid, resize_like

ALGORITHM = "fastscnn"


class FastNetwork(SegmentationNetwork):
    """FastSCNN of GluonCV for images of any size. If a side has fewer than 3 pixels, the edge is repeated.

    The first convolution has no padding, so it needs 3 pixels along each axis.
    """

    heads = ("classifier", "auxlayer")
    fast_parts = ("auxlayer",)  # as in GluonCV
    least_side = 3

    def __init__(self, num_classes: int, **norm: Any) -> None:
        gluon.HybridBlock.__init__(self)  # without the parts of a model with a ResNet
        warnings.filterwarnings("ignore", "Parameter .* is not used by any computation")
        self.algorithm, self.backbone, self.num_classes = ALGORITHM, None, num_classes
        # some GluonCV layers use the type of the normalization but not its settings, so both are combined
        layer = functools.partial(norm.get("norm_layer", nn.BatchNorm), **norm.get("norm_kwargs", {}))
        with self.name_scope():  # as in FastSCNN of GluonCV, which also initializes the parts on the CPU
            self.learning_to_downsample = fastscnn.LearningToDownsample(32, 48, 64, norm_layer=layer)
            self.global_feature_extractor = fastscnn.GlobalFeatureExtractor(
                64, (64, 96, 128), 128, 6, (3, 3, 3), norm_layer=layer
            )
            self.feature_fusion = fastscnn.FeatureFusionModule(64, 128, 128, height=0, width=0, norm_layer=layer)
            self.classifier = fastscnn.Classifer(128, num_classes, norm_layer=layer)
            self.auxlayer = fastscnn._auxHead(64, 64, num_classes, norm_layer=layer)
        self._set_decoder_rate()

    def forward(self, images: Any, *args: Any) -> Any:
        """Compute the logits of images of any size; symbols are passed through for the export."""
        if not isinstance(images, mx.nd.NDArray):
            return super().forward(images, *args)
        return answer_any_size(super().forward, images, self.least_side)

    def main_head(self, F: Any, images: Any) -> Any:
        """Compute the logits of the main head at the size of the images, as part of another graph."""
        x, fine = self._downsample(F, images)
        return self.logits(F, self._classify(F, fine), x)

    def both_heads(self, F: Any, images: Any) -> tuple[Any, Any]:
        """Compute the logits of the main and the auxiliary head at the size of the images, for training."""
        x, fine = self._downsample(F, images)
        return self.logits(F, self._classify(F, fine), x), self.logits(F, self.auxlayer(fine), x)

    def _downsample(self, F: Any, images: Any) -> tuple[Any, Any]:
        """Return the normalized input (N, 3, H, W) and its features at an eighth of the size."""
        x = normalize(F, images)
        return x, self.learning_to_downsample(x)

    def _classify(self, F: Any, fine: Any) -> Any:
        """Join the features `fine` with global features; returns the logits of the main head at their size."""
        extractor, fusion = self.global_feature_extractor, self.feature_fusion
        coarse = extractor.bottleneck3(extractor.bottleneck2(extractor.bottleneck1(fine)))
        coarse = extractor.ppm.out(pool_pyramid(F, extractor.ppm, coarse))
        coarse = fusion.dwconv(resize_like(F, coarse, fine))
        joined = fusion.bn_high(fusion.conv_higher_res(fine)) + fusion.bn(fusion.conv_lower_res(coarse))
        return self.classifier(fusion.relu(joined))


def answer_any_size(
    network: Callable[[mx.nd.NDArray], mx.nd.NDArray], images: mx.nd.NDArray, least: int
) -> mx.nd.NDArray:
    """Compute the logits (N, num_classes, H, W) of images (N, H, W, 3) with a model that needs sides of `least` pixels.

    If a side is shorter, the last row or column is repeated, and its logits are removed.
    """
    height, width = images.shape[1:3]
    for axis in (1, 2):
        if images.shape[axis] < least:
            images = mx.nd.take(images, mx.nd.arange(least, ctx=images.context), axis=axis, mode="clip")
    logits = network(images)
    return logits if images.shape[1:3] == (height, width) else logits[:, :, :height, :width]
