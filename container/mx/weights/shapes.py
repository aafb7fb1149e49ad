"""Names and shapes of the parameters of every model, without MXNet.

With them, a weight file is checked before MXNet is imported.
"""

from __future__ import annotations

from collections.abc import Mapping

Shapes = Mapping[str, tuple[int, ...]]

_BLOCKS = {
    "resnet-18": (2, 2, 2, 2),
    "resnet-34": (3, 4, 6, 3),
    "resnet-50": (3, 4, 6, 3),
    "resnet-101": (3, 4, 23, 3),
}
_BASIC = ("resnet-18", "resnet-34")  # two convolutions per block, and one convolution before the first block
_ATROUS_CHANNELS, _ATROUS_KERNELS = 256, (1, 3, 3, 3)
_EXPANSION = 6  # of the Fast-SCNN bottlenecks
_NORM = ("gamma", "beta", "running_mean", "running_var")


def architecture_name(algorithm: str, backbone: str | None, num_classes: int) -> str:
    """Return the name of a model for messages: `fcn, resnet-50, 21 classes`."""
    return ", ".join(filter(None, (algorithm, backbone, f"{num_classes} classes")))


def classifiers(algorithm: str) -> tuple[str, ...]:
    """Return the prefixes of the layers that have an output per class."""
    return ("classifier.conv." if algorithm == "fastscnn" else "head.block.4.", "auxlayer.block.4.")


def model_shapes(algorithm: str, backbone: str | None, num_classes: int) -> Shapes:
    """Return the shape of every parameter by name, the auxiliary head included."""
    if backbone is None:
        return _fastscnn(num_classes)
    stage3, stage4 = (256, 512) if backbone in _BASIC else (1024, 2048)
    return {
        **encoder_shapes(backbone),
        **_decoder(algorithm, stage4, num_classes),
        **_head("auxlayer.block", stage3, stage3 // 4, num_classes),
    }


def encoder_shapes(backbone: str) -> Shapes:
    """Return the shape of every parameter of a backbone by name."""
    basic = backbone in _BASIC
    if basic:
        shapes, channels = _layer("conv1", "bn1", 64, 3, 7), 64
    else:
        shapes = _layer("conv1.0", "conv1.1", 64, 3, 3) | _layer("conv1.3", "conv1.4", 64, 64, 3)
        shapes |= _layer("conv1.6", "bn1", 128, 64, 3)
        channels = 128
    for stage, blocks in enumerate(_BLOCKS[backbone]):
        width = 64 * 2**stage
        outer = width if basic else 4 * width
        for number in range(blocks):
            block = f"layer{stage + 1}.{number}"
            kernels = [(width, channels, 3), (width, width, 3)]
            if not basic:
                kernels = [(width, channels, 1), (width, width, 3), (outer, width, 1)]
            for index, sizes in enumerate(kernels, 1):
                shapes |= _layer(f"{block}.conv{index}", f"{block}.bn{index}", *sizes)
            if channels != outer:
                shapes |= _layer(f"{block}.downsample.0", f"{block}.downsample.1", outer, channels, 1)
            channels = outer
    return shapes


def _decoder(algorithm: str, channels: int, num_classes: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    if algorithm == "psp":
        for index in range(1, 5):
            shapes |= _layer(f"head.psp.conv{index}.0", f"head.psp.conv{index}.1", channels // 4, channels, 1)
        return shapes | _head("head.block", 2 * channels, channels // 4, num_classes)
    if algorithm == "fcn":
        return _head("head.block", channels, channels // 4, num_classes)
    width = _ATROUS_CHANNELS
    for index, kernel in enumerate(_ATROUS_KERNELS):
        shapes |= _layer(f"head.aspp.concurent.{index}.0", f"head.aspp.concurent.{index}.1", width, channels, kernel)
    shapes |= _layer("head.aspp.concurent.4.gap.1", "head.aspp.concurent.4.gap.2", width, channels, 1)
    shapes |= _layer("head.aspp.project.0", "head.aspp.project.1", width, 5 * width, 1)
    return shapes | _head("head.block", width, width, num_classes)


def _fastscnn(num_classes: int) -> Shapes:
    down, extract, fusion = "learning_to_downsample", "global_feature_extractor", "feature_fusion"
    shapes = _layer(f"{down}.conv.block.0", f"{down}.conv.block.1", 32, 3, 3)
    shapes |= _separable(f"{down}.dsconv1", 32, 48) | _separable(f"{down}.dsconv2", 48, 64)
    channels = 64
    for stage, width in enumerate((64, 96, 128), 1):
        for number in range(3):
            block, inner = f"{extract}.bottleneck{stage}.{number}.block", _EXPANSION * channels
            shapes |= _layer(f"{block}.0.block.0", f"{block}.0.block.1", inner, channels, 1)
            shapes |= _layer(f"{block}.1.conv.0", f"{block}.1.conv.1", inner, 1, 3)
            shapes |= _layer(f"{block}.2", f"{block}.3", width, inner, 1)
            channels = width
    for index in range(1, 5):
        shapes |= _layer(f"{extract}.ppm.conv{index}.0", f"{extract}.ppm.conv{index}.1", 32, 128, 1)
    shapes |= _layer(f"{extract}.ppm.out.block.0", f"{extract}.ppm.out.block.1", 128, 256, 1)
    shapes |= _layer(f"{fusion}.dwconv.conv.0", f"{fusion}.dwconv.conv.1", 128, 1, 3)
    for side, norm, width in (("lower", "bn", 128), ("higher", "bn_high", 64)):
        shapes |= _layer(f"{fusion}.conv_{side}_res", f"{fusion}.{norm}", 128, width, 1)
        shapes[f"{fusion}.conv_{side}_res.bias"] = (128,)
    shapes |= _separable("classifier.dsconv1", 128, 128) | _separable("classifier.dsconv2", 128, 128)
    shapes |= {"classifier.conv.weight": (num_classes, 128, 1, 1), "classifier.conv.bias": (num_classes,)}
    return shapes | _head("auxlayer.block", 64, 64, num_classes)


def _head(name: str, channels: int, inner: int, num_classes: int) -> dict[str, tuple[int, ...]]:
    """Return the last layers of every decoder."""
    shapes = _layer(f"{name}.0", f"{name}.1", inner, channels, 3)
    return shapes | {f"{name}.4.weight": (num_classes, inner, 1, 1), f"{name}.4.bias": (num_classes,)}


def _separable(name: str, channels: int, out: int) -> dict[str, tuple[int, ...]]:
    """Return a depthwise and a pointwise convolution."""
    shapes = _layer(f"{name}.conv.0", f"{name}.conv.1", channels, 1, 3)
    return shapes | _layer(f"{name}.conv.3", f"{name}.conv.4", out, channels, 1)


def _layer(convolution: str, norm: str, out: int, channels: int, kernel: int) -> dict[str, tuple[int, ...]]:
    """Return a convolution without a bias and its batch normalization."""
    return {
        f"{convolution}.weight": (out, channels, kernel, kernel),
        **{f"{norm}.{kind}": (out,) for kind in _NORM},
    }
