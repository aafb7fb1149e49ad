"""Mapping of imgclsmob layer names to GluonCV layer names for Fast-SCNN."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_STEMS = ("stem.", "steam.")


def is_imgclsmobs(weights: Mapping[str, Any]) -> bool:
    """Return whether the arrays belong to a Fast-SCNN model with imgclsmob names."""
    return any(name.startswith(_STEMS) for name in weights) and any(name.startswith("fusion.") for name in weights)


def to_gluoncv(name: str) -> str:
    """Return the GluonCV name of an array; other names are not changed."""
    for stem in _STEMS:
        name = f"stem.{name.removeprefix(stem)}" if name.startswith(stem) else name
    layer, _, last = name.rpartition(".")
    return f"{_LAYERS[layer]}.{last}" if layer in _LAYERS else name


def _layers() -> Iterator[tuple[str, str]]:
    """Yield the name of every layer in imgclsmob and in GluonCV."""
    for theirs, ours, first in _blocks():  # a convolution, followed by its batch normalization
        yield f"{theirs}.conv", f"{ours}.{first}"
        yield f"{theirs}.bn", f"{ours}.{first + 1}"
    yield "fusion.low_pw_conv.conv", "feature_fusion.conv_lower_res"
    yield "fusion.low_pw_conv.bn", "feature_fusion.bn"
    yield "fusion.high_conv.conv", "feature_fusion.conv_higher_res"
    yield "fusion.high_conv.bn", "feature_fusion.bn_high"
    yield "head.conv3", "classifier.conv"
    yield "aux_head.conv2", "auxlayer.block.4"


def _blocks() -> Iterator[tuple[str, str, int]]:
    """Yield every pair of convolution and batch normalization: imgclsmob name, GluonCV sequence, index in it."""
    yield "stem.conv1", "learning_to_downsample.conv.block", 0
    separable = {f"stem.conv{number + 1}": f"learning_to_downsample.dsconv{number}" for number in (1, 2)}
    separable |= {f"head.conv{number}": f"classifier.dsconv{number}" for number in (1, 2)}
    for theirs, ours in separable.items():
        yield f"{theirs}.dw_conv", f"{ours}.conv", 0
        yield f"{theirs}.pw_conv", f"{ours}.conv", 3
    for stage in range(3):
        for number in range(3):
            theirs, ours = f"features.features.{stage}.{number}", f"bottleneck{stage + 1}.{number}.block"
            yield f"{theirs}.conv1", f"global_feature_extractor.{ours}.0.block", 0
            yield f"{theirs}.conv2", f"global_feature_extractor.{ours}.1.conv", 0
            yield f"{theirs}.conv3", f"global_feature_extractor.{ours}", 2
    for branch in range(1, 5):  # branch 0 contains the features themselves
        yield f"pool.branches.{branch}.conv", f"global_feature_extractor.ppm.conv{branch}", 0
    yield "pool.conv", "global_feature_extractor.ppm.out.block", 0
    yield "fusion.low_dw_conv", "feature_fusion.dwconv.conv", 0
    yield "aux_head.conv1", "auxlayer.block", 0


_LAYERS = dict(_layers())
