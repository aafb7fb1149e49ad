"""The models: GluonCV encoders and decoders in one graph for any input size."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np
from gluoncv.model_zoo.deeplabv3 import DeepLabV3
from gluoncv.model_zoo.fcn import FCN
from gluoncv.model_zoo.pspnet import PSPNet
from mxnet import gluon

from container.arrays import Array
from container.errors import ClientError, last_line
from container.geometry.windows import Windows
from container.mx.networks.decoders import build_small
from container.mx.optimization.losses import Criterion, cross_entropy
from container.mx.weights.shapes import architecture_name

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


_MODELS = {"fcn": FCN, "psp": PSPNet, "deeplab": DeepLabV3}
_BACKBONES = {"resnet-50": "resnet50", "resnet-101": "resnet101"}
_SMALL_BACKBONES = {"resnet-18": "resnet18", "resnet-34": "resnet34"}
_PARTS = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4", "head", "auxlayer")
_PYRAMID_BINS = (1, 2, 3, 6)


class SegmentationNetwork(gluon.HybridBlock):
    """GluonCV's blocks under GluonCV's names (so parameter files fit both ways), wired to follow any input size.

    Input: uint8 RGB (N, H, W, 3). Output: the main head's logits, float32 (N, num_classes, H, W). Training knows the
    network by `main_head` and `both_heads`.
    """

    heads: tuple[str, ...] = ("head", "auxlayer")  # the parts that are no backbone
    least_side = 1  # pixels that a side of what it is called with must have
    windows: Windows | None = None  # in which who calls it with whole images divides large ones

    def __init__(self, algorithm: str, backbone: str, num_classes: int, **norm: Any) -> None:
        super().__init__()
        model = _build(algorithm, backbone, num_classes, **norm)
        # the auxiliary head belongs to the parameter files but not to the graph that answers
        warnings.filterwarnings("ignore", "Parameter .* is not used by any computation")
        self.algorithm = algorithm
        self.backbone: str | None = backbone
        self.num_classes = num_classes
        for name in _PARTS:
            setattr(self, name, getattr(model, name))

    @property
    def architecture(self) -> str:
        """What a person calls the network: `fcn, resnet-50, 21 classes`."""
        return architecture_name(self.algorithm, self.backbone, self.num_classes)

    def hybrid_forward(self, F: Any, images: Any) -> Any:
        """Compute the main head's logits at the images' size."""
        return self.main_head(F, images)

    def main_head(self, F: Any, images: Any) -> Any:
        """Compute the main head's logits at the images' size, as part of another graph."""
        x, _, stage4 = self.encode(F, images)
        return self.logits(F, self.decode(F, stage4), x)

    def both_heads(self, F: Any, images: Any) -> tuple[Any, Any]:
        """Compute the main and the auxiliary head's logits at the images' size, for training."""
        x, stage3, stage4 = self.encode(F, images)
        return self.logits(F, self.decode(F, stage4), x), self.logits(F, self.auxlayer(stage3), x)

    def logits(self, F: Any, coarse: Any, x: Any) -> Any:
        """Resize a head's output to the input's size, in float32 whatever the precision before.

        For a float16 head, MXNet would make the input itself float16, which it cannot be normalized to.
        """
        return resize_like(F, F.amp_cast(coarse, dtype="float32"), x)

    def encode(self, F: Any, images: Any) -> tuple[Any, Any, Any]:
        """Normalize, then return the input (N, 3, H, W) and the features of stages 3 and 4 (stride 8)."""
        x = normalize(F, images)
        stage2 = self.layer2(self.layer1(self.maxpool(self.relu(self.bn1(self.conv1(x))))))
        stage3 = self.layer3(stage2)
        return x, stage3, self.layer4(stage3)

    def decode(self, F: Any, features: Any) -> Any:
        """Apply the decoder to stage 4's features; logits at stride 8."""
        if self.algorithm == "psp":
            return self.head.block(pool_pyramid(F, self.head.psp, features))
        if self.algorithm == "deeplab":
            return self._atrous_pyramid(F, features)
        return self.head(features)

    def _atrous_pyramid(self, F: Any, features: Any) -> Any:
        *atrous, pooling = self.head.aspp.concurent._children.values()
        branches = [branch(features) for branch in atrous]
        branches.append(resize_like(F, pooling.gap(features), features))
        return self.head.block(self.head.aspp.project(_concat(F, *branches)))


def _build(algorithm: str, backbone: str, num_classes: int, **norm: Any) -> gluon.HybridBlock:
    """Return GluonCV's model, or the like of it on a small backbone."""
    if backbone in _SMALL_BACKBONES:
        return build_small(algorithm, _SMALL_BACKBONES[backbone], num_classes, **norm)
    with contextlib.redirect_stdout(io.StringIO()):  # PSPNet prints its crop size
        return _MODELS[algorithm](nclass=num_classes, backbone=_BACKBONES[backbone], pretrained_base=False, **norm)


class TrainingLoss(gluon.HybridBlock):
    """Network and loss in one graph.

    Inputs: uint8 images (N, H, W, 3), float32 labels (N, H, W) with 255 = ignore. Output: the sum over all
    labeled pixels of the main head's loss, cross-entropy unless `criterion` says another, plus `aux_weight` times the
    auxiliary head's. Its gradient weighs the auxiliary head's by `aux_gradient`, where that is given.
    """

    def __init__(
        self,
        network: SegmentationNetwork,
        aux_weight: float,
        aux_gradient: float | None = None,
        criterion: Criterion | None = None,
        class_weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.aux_weight = aux_weight
        self.aux_gradient = aux_weight if aux_gradient is None else aux_gradient
        self._criterion = criterion or _plain
        if class_weights is not None:
            self.class_weights = self.params.get_constant("class_weights", np.array(class_weights, np.float32))

    def hybrid_forward(self, F: Any, images: Any, labels: Any, class_weights: Any = None) -> Any:
        """Compute the summed loss, shape (1,); finite for any finite logits."""
        if not self.aux_weight:
            return self._criterion(F, self.network.main_head(F, images), labels, class_weights)
        main, auxiliary = (
            self._criterion(F, logits, labels, class_weights) for logits in self.network.both_heads(F, images)
        )
        loss = main + self.aux_gradient * auxiliary
        if self.aux_gradient != self.aux_weight:
            loss = loss + (self.aux_weight - self.aux_gradient) * F.BlockGrad(auxiliary)
        return loss


def _plain(F: Any, logits: Any, labels: Any, class_weights: Any) -> Any:
    return cross_entropy(F, logits, labels)


def initialize_weights(network: SegmentationNetwork) -> None:
    """Draw all weights at random (He et al. 2015), on the CPU; MXNet's and NumPy's seeds decide them."""
    network.initialize(mx.init.Xavier(rnd_type="gaussian", factor_type="in", magnitude=2), force_reinit=True)
    # GluonCV leaves the encoder's shapes to the first pass; only the graph with both heads knows them all
    TrainingLoss(network, 1.0).infer_shape(mx.nd.zeros((1, 8, 8, 3), dtype="uint8"), mx.nd.zeros((1, 8, 8)))
    for parameter in network.collect_params().values():
        parameter._finish_deferred_init()


def assign_weights(network: SegmentationNetwork, arrays: Mapping[str, Array]) -> None:
    """Copy arrays into the parameters of these names; the network must be initialized on the CPU."""
    parameters = network._collect_params_with_prefix()
    for name, array in arrays.items():
        parameters[name].set_data(mx.nd.array(array))


def load_weights(network: SegmentationNetwork, path: Path, devices: list[mx.Context], source: str = "") -> None:
    """Load a Gluon parameter file of this architecture, in which the auxiliary head may be missing.

    Raises ClientError that names the file and what differs; `source` is what it calls the file, where a person does
    not know its path.
    """
    try:
        saved = mx.nd.load(str(path))
        needed = network._collect_params_with_prefix()
        missing = [name for name in needed if name not in saved and not name.startswith("auxlayer.")]
        if missing:
            raise ValueError(f"it lacks {missing[0]}" + (f" and {len(missing) - 1} more" if missing[1:] else ""))
        network.load_parameters(str(path), ctx=devices, allow_missing=True, cast_dtype=True)
    except Exception as error:  # MXNetError, AssertionError, ValueError, by what differs
        raise ClientError(
            f"{source or path} does not fit this network ({network.architecture}): {last_line(error)}"
        ) from error


def normalize(F: Any, images: Any) -> Any:
    """Return uint8 images (N, H, W, 3) as the encoders want them: float32 (N, 3, H, W) by ImageNet's statistics."""
    return F.image.normalize(F.image.to_tensor(images), mean=MEAN, std=STD)


def pool_pyramid(F: Any, pyramid: Any, features: Any) -> Any:
    """Return the features beside their averages over 1, 2×2, 3×3 and 6×6 fields, by GluonCV's layers `pyramid`."""
    convolutions = (pyramid.conv1, pyramid.conv2, pyramid.conv3, pyramid.conv4)
    branches = [
        resize_like(F, convolution(F.contrib.AdaptiveAvgPooling2D(features, output_size=bins)), features)
        for convolution, bins in zip(convolutions, _PYRAMID_BINS, strict=True)
    ]
    return _concat(F, features, *branches)


def resize_like(F: Any, x: Any, like: Any) -> Any:
    """Resize bilinearly, corners aligned, to the height and width of `like`, whatever they are.

    If both have the same size, MXNet 1.9.1 does not write the gradient of `like`: it is whatever the memory contained.
    """
    return F.contrib.BilinearResize2D(x, F.BlockGrad(like), mode="like")


def _concat(F: Any, *branches: Any) -> Any:
    """Concatenate channels in the widest of the branches' types: in bfloat16, what was resized is float32."""
    return F.concat(*F.amp_multicast(*branches, num_outputs=len(branches)), dim=1)
