"""Fast-SCNN as imgclsmob defines it, written down from its published definition: names, order and computation.

For images whose sides are multiples of 32, where all its resizes are to shares of the image's size.
"""

from __future__ import annotations

from typing import Any

from mxnet import gluon
from mxnet.gluon import nn


class _Conv(gluon.HybridBlock):
    """A convolution `conv`, its batch norm `bn` and, unless it is linear, a ReLU."""

    def __init__(self, channels: int, inputs: int, size: int, *, linear: bool = False, **settings: Any) -> None:
        super().__init__()
        self.linear = linear
        self.conv = nn.Conv2D(channels, size, in_channels=inputs, **{"use_bias": False, **settings})
        self.bn = nn.BatchNorm(in_channels=channels)

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        x = self.bn(self.conv(x))
        return x if self.linear else F.relu(x)


def _depthwise(channels: int, strides: int = 1) -> _Conv:
    return _Conv(channels, channels, 3, padding=1, groups=channels, strides=strides)


class _Parts(gluon.HybridBlock):
    """Named blocks, called one after the other."""

    def __init__(self, residual: bool = False, **parts: gluon.HybridBlock) -> None:
        super().__init__()
        self.residual = residual
        for name, part in parts.items():
            setattr(self, name, part)

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        y = x
        for part in self._children.values():
            y = part(y)
        return x + y if self.residual else y


def _separable(channels: int, inputs: int, strides: int = 1) -> _Parts:
    return _Parts(dw_conv=_depthwise(inputs, strides), pw_conv=_Conv(channels, inputs, 1))


def _bottleneck(channels: int, inputs: int, strides: int) -> _Parts:
    wide = 6 * inputs
    linear = _Conv(channels, wide, 1, linear=True)
    residual = strides == 1 and channels == inputs
    return _Parts(residual, conv1=_Conv(wide, inputs, 1), conv2=_depthwise(wide, strides), conv3=linear)


class _Pyramid(gluon.HybridBlock):
    def __init__(self) -> None:
        super().__init__()
        self.branches = nn.HybridSequential()
        self.branches.add(nn.HybridLambda("identity"), *(_Parts(conv=_Conv(32, 128, 1)) for _ in range(4)))
        self.conv = _Conv(128, 256, 1)

    def forward(self, x: Any) -> Any:
        from mxnet import nd

        height, width = x.shape[2:]
        pooled = [nd.contrib.AdaptiveAvgPooling2D(x, output_size=bins) for bins in (1, 2, 3, 6)]
        branches = [branch(y) for branch, y in zip(list(self.branches)[1:], pooled, strict=True)]
        wide = [nd.contrib.BilinearResize2D(y, height=height, width=width) for y in branches]
        return self.conv(nd.concat(x, *wide, dim=1))


class PublishedFastSCNN(gluon.HybridBlock):
    """Normalized images (N, 3, H, W) to the logits of the main and of the auxiliary head."""

    def __init__(self, classes: int, stem: str = "stem") -> None:
        super().__init__()
        self._stem = stem
        parts = {"conv1": _Conv(32, 3, 3, strides=2), "conv2": _separable(48, 32, 2), "conv3": _separable(64, 48, 2)}
        setattr(self, stem, _Parts(**parts))
        stages = nn.HybridSequential()
        inputs = 64
        for channels, strides in ((64, 2), (96, 2), (128, 1)):
            stage = nn.HybridSequential()
            for number in range(3):
                stage.add(_bottleneck(channels, inputs, 1 if number else strides))
                inputs = channels
            stages.add(stage)
        self.features = _Parts(features=stages)
        self.pool = _Pyramid()
        self.fusion = _Parts(
            low_dw_conv=_depthwise(128),
            low_pw_conv=_Conv(128, 128, 1, linear=True, use_bias=True),
            high_conv=_Conv(128, 64, 1, linear=True, use_bias=True),
        )
        self.head = _Parts(
            conv1=_separable(128, 128), conv2=_separable(128, 128), conv3=nn.Conv2D(classes, 1, in_channels=128)
        )
        self.aux_head = _Parts(conv1=_Conv(64, 64, 3, padding=1), conv2=nn.Conv2D(classes, 1, in_channels=64))

    def forward(self, images: Any) -> tuple[Any, Any]:
        from mxnet import nd

        def resize(x: Any, like: Any) -> Any:
            return nd.contrib.BilinearResize2D(x, height=like.shape[2], width=like.shape[3])

        fine = getattr(self, self._stem)(images)
        coarse = resize(self.pool(self.features(fine)), fine)
        low = self.fusion.low_pw_conv(self.fusion.low_dw_conv(coarse))
        joined = nd.relu(self.fusion.high_conv(fine) + low)
        return resize(self.head(joined), images), resize(self.aux_head(fine), images)
