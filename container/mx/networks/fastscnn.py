"""Fast-SCNN (Poudel et al., 2019) with GluonCV layers and names, for any input size.

A network of its own, without a ResNet: 1.1 million parameters, an eighth of the input's size after three convolutions.
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
    """GluonCV's FastSCNN. It takes images of every size: of a side below 3 pixels the edge is repeated.

    Its first convolution has no padding, so that what is beyond the edge would be missing there.
    """

    heads = ("classifier", "auxlayer")
    least_side = 3

    def __init__(self, num_classes: int, **norm: Any) -> None:
        gluon.HybridBlock.__init__(self)  # without the parts of a network on a ResNet
        warnings.filterwarnings("ignore", "Parameter .* is not used by any computation")
        self.algorithm, self.backbone, self.num_classes = ALGORITHM, None, num_classes
        # some of GluonCV's layers heed the kind of normalization, but not its settings: both in one
        layer = functools.partial(norm.get("norm_layer", nn.BatchNorm), **norm.get("norm_kwargs", {}))
        with self.name_scope():  # as in GluonCV's FastSCNN, which would also initialize them, on the CPU
            self.learning_to_downsample = fastscnn.LearningToDownsample(32, 48, 64, norm_layer=layer)
            self.global_feature_extractor = fastscnn.GlobalFeatureExtractor(
                64, (64, 96, 128), 128, 6, (3, 3, 3), norm_layer=layer
            )
            self.feature_fusion = fastscnn.FeatureFusionModule(64, 128, 128, height=0, width=0, norm_layer=layer)
            self.classifier = fastscnn.Classifer(128, num_classes, norm_layer=layer)
            self.auxlayer = fastscnn._auxHead(64, 64, num_classes, norm_layer=layer)
        self.auxlayer.collect_params().setattr("lr_mult", 10)

    def forward(self, images: Any, *args: Any) -> Any:
        """Answer images of any size; a graph that is being written is not concerned."""
        if not isinstance(images, mx.nd.NDArray):
            return super().forward(images, *args)
        return answer_any_size(super().forward, images, self.least_side)

    def main_head(self, F: Any, images: Any) -> Any:
        """Compute the main head's logits at the images' size, as part of another graph."""
        x, fine = self._downsample(F, images)
        return self.logits(F, self._classify(F, fine), x)

    def both_heads(self, F: Any, images: Any) -> tuple[Any, Any]:
        """Compute the main and the auxiliary head's logits at the images' size, for training."""
        x, fine = self._downsample(F, images)
        return self.logits(F, self._classify(F, fine), x), self.logits(F, self.auxlayer(fine), x)

    def _downsample(self, F: Any, images: Any) -> tuple[Any, Any]:
        """Return the normalized input (N, 3, H, W) and its features at an eighth of the size."""
        x = normalize(F, images)
        return x, self.learning_to_downsample(x)

    def _classify(self, F: Any, fine: Any) -> Any:
        """Return the main head's logits at the size of the features `fine`, joined with what is seen from afar."""
        extractor, fusion = self.global_feature_extractor, self.feature_fusion
        coarse = extractor.bottleneck3(extractor.bottleneck2(extractor.bottleneck1(fine)))
        coarse = extractor.ppm.out(pool_pyramid(F, extractor.ppm, coarse))
        coarse = fusion.dwconv(resize_like(F, coarse, fine))
        joined = fusion.bn_high(fusion.conv_higher_res(fine)) + fusion.bn(fusion.conv_lower_res(coarse))
        return self.classifier(fusion.relu(joined))


def answer_any_size(
    network: Callable[[mx.nd.NDArray], mx.nd.NDArray], images: mx.nd.NDArray, least: int
) -> mx.nd.NDArray:
    """Call a network that takes no side below `least` pixels with images (N, H, W, 3); logits (N, num_classes, H, W).

    Of a shorter side the last row or column is repeated, and what the network makes of it is cut off.
    """
    height, width = images.shape[1:3]
    for axis in (1, 2):
        if images.shape[axis] < least:
            images = mx.nd.take(images, mx.nd.arange(least, ctx=images.context), axis=axis, mode="clip")
    logits = network(images)
    return logits if images.shape[1:3] == (height, width) else logits[:, :, :height, :width]
