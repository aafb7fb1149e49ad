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

DECODER_RATE = 10  # times the learning rate; GluonCV sets the same value in its models, and this project overwrites it

_MODELS = {"fcn": FCN, "psp": PSPNet, "deeplab": DeepLabV3}
_BACKBONES = {"resnet-50": "resnet50", "resnet-101": "resnet101"}
_SMALL_BACKBONES = {"resnet-18": "resnet18", "resnet-34": "resnet34"}
_PARTS = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4", "head", "auxlayer")
_PYRAMID_BINS = (1, 2, 3, 6)


class SegmentationNetwork(gluon.HybridBlock):
    """GluonCV model with GluonCV parameter names, so that parameter files are compatible, for any input size.

    Input: uint8 RGB (N, H, W, 3). Output: the logits of the main head, float32 (N, num_classes, H, W). Training uses
    `main_head` and `both_heads`.
    """

    heads: tuple[str, ...] = ("head", "auxlayer")  # parts outside the backbone
    fast_parts: tuple[str, ...] = ("head", "auxlayer")  # parts that learn with DECODER_RATE
    least_side = 1  # minimum pixels of each side of the input
    windows: Windows | None = None  # sliding windows, which callers use for large images

    def __init__(self, algorithm: str, backbone: str, num_classes: int, **norm: Any) -> None:
        super().__init__()
        model = _build(algorithm, backbone, num_classes, **norm)
        # parameter files contain the auxiliary head, but the inference graph does not use it
        warnings.filterwarnings("ignore", "Parameter .* is not used by any computation")
        self.algorithm = algorithm
        self.backbone: str | None = backbone
        self.num_classes = num_classes
        for name in _PARTS:
            setattr(self, name, getattr(model, name))
        self._set_decoder_rate()

    def _set_decoder_rate(self) -> None:
        for name in self.fast_parts:
            getattr(self, name).collect_params().setattr("lr_mult", DECODER_RATE)

    @property
    def architecture(self) -> str:
        """Name of the model in messages: `fcn, resnet-50, 21 classes`."""
        return architecture_name(self.algorithm, self.backbone, self.num_classes)

    def hybrid_forward(self, F: Any, images: Any) -> Any:
        """Compute the logits of the main head at the size of the images."""
        return self.main_head(F, images)

    def main_head(self, F: Any, images: Any) -> Any:
        """Compute the logits of the main head at the size of the images, as part of another graph."""
        x, _, stage4 = self.encode(F, images)
        return self.logits(F, self.decode(F, stage4), x)

    def both_heads(self, F: Any, images: Any) -> tuple[Any, Any]:
        """Compute the logits of the main and the auxiliary head at the size of the images, for training."""
        x, stage3, stage4 = self.encode(F, images)
        return self.logits(F, self.decode(F, stage4), x), self.logits(F, self.auxlayer(stage3), x)

    def logits(self, F: Any, coarse: Any, x: Any) -> Any:
        """Resize the output of a head to the size of the input, in float32 for any precision.

        Without the cast, MXNet converts the input to float16 for a float16 head, and cannot normalize it.
        """
        return resize_like(F, F.amp_cast(coarse, dtype="float32"), x)

    def encode(self, F: Any, images: Any) -> tuple[Any, Any, Any]:
        """Normalize, then return the input (N, 3, H, W) and the features of stages 3 and 4 (stride 8)."""
        x = normalize(F, images)
        stage2 = self.layer2(self.layer1(self.maxpool(self.relu(self.bn1(self.conv1(x))))))
        stage3 = self.layer3(stage2)
        return x, stage3, self.layer4(stage3)

    def decode(self, F: Any, features: Any) -> Any:
        """Apply the decoder to the features of stage 4; returns logits at stride 8."""
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
    """Return the GluonCV model, or the corresponding model with a small backbone."""
    if backbone in _SMALL_BACKBONES:
        return build_small(algorithm, _SMALL_BACKBONES[backbone], num_classes, **norm)
    with contextlib.redirect_stdout(io.StringIO()):  # PSPNet prints its crop size
        return _MODELS[algorithm](nclass=num_classes, backbone=_BACKBONES[backbone], pretrained_base=False, **norm)


class TrainingLoss(gluon.HybridBlock):
    """Model and loss in one graph.

    Inputs: uint8 images (N, H, W, 3), float32 labels (N, H, W) with 255 = ignore. Output: the loss of the main head,
    plus `aux_weight` times the loss of the auxiliary head, summed over all labeled pixels. The default `criterion` is
    cross-entropy. If `aux_gradient` is set, it is the weight of the auxiliary head in the gradient.
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
        """Compute the sum of the loss, shape (1,). It is finite for any finite logits."""
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
    """Initialize all weights at random (He et al. 2015) on the CPU, with the generators of MXNet and NumPy."""
    network.initialize(mx.init.Xavier(rnd_type="gaussian", factor_type="in", magnitude=2), force_reinit=True)
    # GluonCV infers the shapes of the encoder in the first pass; only the graph with both heads has all of them
    TrainingLoss(network, 1.0).infer_shape(mx.nd.zeros((1, 8, 8, 3), dtype="uint8"), mx.nd.zeros((1, 8, 8)))
    for parameter in network.collect_params().values():
        parameter._finish_deferred_init()


def assign_weights(network: SegmentationNetwork, arrays: Mapping[str, Array]) -> None:
    """Copy arrays into the parameters with their names. The model must be initialized on the CPU."""
    parameters = network._collect_params_with_prefix()
    for name, array in arrays.items():
        parameters[name].set_data(mx.nd.array(array))


def load_weights(network: SegmentationNetwork, path: Path, devices: list[mx.Context], source: str = "") -> None:
    """Load a Gluon parameter file of this architecture; the auxiliary head can be missing.

    Raises ClientError that names the file and the difference. `source` is the name of the file in messages, if a user
    does not know its path.
    """
    try:
        saved = mx.nd.load(str(path))
        needed = network._collect_params_with_prefix()
        missing = [name for name in needed if name not in saved and not name.startswith("auxlayer.")]
        if missing:
            raise ValueError(f"the file lacks {missing[0]}" + (f" and {len(missing) - 1} more" if missing[1:] else ""))
        network.load_parameters(str(path), ctx=devices, allow_missing=True, cast_dtype=True)
    except Exception as error:  # MXNetError, AssertionError, or ValueError, depending on the difference
        raise ClientError(
            f"{source or path} does not match this model ({network.architecture}): {last_line(error)}"
        ) from error


def normalize(F: Any, images: Any) -> Any:
    """Normalize uint8 images (N, H, W, 3) with the ImageNet statistics; returns float32 (N, 3, H, W)."""
    return F.image.normalize(F.image.to_tensor(images), mean=MEAN, std=STD)


def pool_pyramid(F: Any, pyramid: Any, features: Any) -> Any:
    """Concatenate features with their averages over 1, 2×2, 3×3, and 6×6 fields, with the GluonCV layers `pyramid`."""
    convolutions = (pyramid.conv1, pyramid.conv2, pyramid.conv3, pyramid.conv4)
    branches = [
        resize_like(F, convolution(F.contrib.AdaptiveAvgPooling2D(features, output_size=bins)), features)
        for convolution, bins in zip(convolutions, _PYRAMID_BINS, strict=True)
    ]
    return _concat(F, features, *branches)


def resize_like(F: Any, x: Any, like: Any) -> Any:
    """Resize bilinearly with aligned corners to the height and width of `like`.

    BlockGrad is necessary: if both sizes are equal, MXNet 1.9.1 does not write the gradient of `like`, and it contains
    uninitialized memory.
    """
    return F.contrib.BilinearResize2D(x, F.BlockGrad(like), mode="like")


def _concat(F: Any, *branches: Any) -> Any:
    """Concatenate channels in the widest type of the branches: in bfloat16 training, resized branches are float32."""
    return F.concat(*F.amp_multicast(*branches, num_outputs=len(branches)), dim=1)
