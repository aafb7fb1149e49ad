"""Layer names of other libraries, and the comparison of names and shapes with a model."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

from container.arrays import Array
from container.mx.weights.shapes import Shapes

_SHOWN = 3  # differences that an error lists

# prefixes of imgclsmob names, and rules for them; the first matching rule is used
_IMGCLSMOB_WORDS = ("features.", "backbone.", "output.1.", "final_block.", "aux_block.", "pool.")
_IMGCLSMOB = [
    (re.compile(rf"^{pattern}"), name)
    for pattern, name in (
        (r"(?:features|backbone)\.0\.conv\.conv\.", "conv1."),  # the single convolution of resnet-18 and resnet-34
        (r"(?:features|backbone)\.0\.conv\.bn\.", "bn1."),
        (r"(?:features|backbone)\.0\.conv1\.conv\.", "conv1.0."),
        (r"(?:features|backbone)\.0\.conv1\.bn\.", "conv1.1."),
        (r"(?:features|backbone)\.0\.conv2\.conv\.", "conv1.3."),
        (r"(?:features|backbone)\.0\.conv2\.bn\.", "conv1.4."),
        (r"(?:features|backbone)\.0\.conv3\.conv\.", "conv1.6."),
        (r"(?:features|backbone)\.0\.conv3\.bn\.", "bn1."),
        (r"(?:features|backbone)\.(\d)\.(\d+)\.body\.conv(\d)\.conv\.", r"layer\1.\2.conv\3."),
        (r"(?:features|backbone)\.(\d)\.(\d+)\.body\.conv(\d)\.bn\.", r"layer\1.\2.bn\3."),
        (r"(?:features|backbone)\.(\d)\.(\d+)\.identity_conv\.conv\.", r"layer\1.\2.downsample.0."),
        (r"(?:features|backbone)\.(\d)\.(\d+)\.identity_conv\.bn\.", r"layer\1.\2.downsample.1."),
        (r"output\.1\.", "fc."),
        (r"final_block\.conv1\.conv\.", "head.block.0."),
        (r"final_block\.conv1\.bn\.", "head.block.1."),
        (r"final_block\.conv2\.", "head.block.4."),
        (r"aux_block\.conv1\.conv\.", "auxlayer.block.0."),
        (r"aux_block\.conv1\.bn\.", "auxlayer.block.1."),
        (r"aux_block\.conv2\.", "auxlayer.block.4."),
        (r"pool\.conv\.conv\.", "head.aspp.project.0."),
        (r"pool\.conv\.bn\.", "head.aspp.project.1."),
    )
]
_PYRAMID = [
    (re.compile(r"^pool\.branches\.([1-4])\.conv\.conv\."), r"head.psp.conv\1.0."),
    (re.compile(r"^pool\.branches\.([1-4])\.conv\.bn\."), r"head.psp.conv\1.1."),
]
_ATROUS = [
    (re.compile(r"^pool\.branches\.([0-3])\.conv\."), r"head.aspp.concurent.\1.0."),
    (re.compile(r"^pool\.branches\.([0-3])\.bn\."), r"head.aspp.concurent.\1.1."),
    (re.compile(r"^pool\.branches\.4\.conv\.conv\."), "head.aspp.concurent.4.gap.1."),
    (re.compile(r"^pool\.branches\.4\.conv\.bn\."), "head.aspp.concurent.4.gap.2."),
]
_FASTSCNN_STEMS = ("stem.", "steam.")


def to_gluoncv(weights: Mapping[str, Array]) -> dict[str, Array]:
    """Return the arrays with GluonCV names; names without a matching rule are not changed.

    Raises ValueError if two arrays get the same name.
    """
    rules = _IMGCLSMOB + (_ATROUS if any(name.startswith("pool.branches.0.") for name in weights) else _PYRAMID)
    is_fast = _is_imgclsmob_fastscnn(weights)
    renamed: dict[str, Array] = {}
    for name, array in weights.items():
        if is_fast:
            target = _rename_fastscnn(name)
        else:
            target = _rename(name, rules) if name.startswith(_IMGCLSMOB_WORDS) else _from_pytorch(name, weights)
        if target in renamed:
            raise ValueError(f"it has two arrays for {target}")
        renamed[target] = array
    return renamed


def _rename(name: str, rules: list[tuple[re.Pattern[str], str]]) -> str:
    for pattern, target in rules:
        if pattern.match(name):
            return pattern.sub(target, name, count=1)
    return name


def _from_pytorch(name: str, weights: Mapping[str, Array]) -> str:
    """Return the GluonCV name of a PyTorch array: `weight` and `bias` of a batch normalization are gamma and beta."""
    prefix, _, last = name.rpartition(".")
    if last in ("weight", "bias") and f"{prefix}.running_mean" in weights:
        return f"{prefix}.{'gamma' if last == 'weight' else 'beta'}"
    return name


def check_fit(arrays: Mapping[str, Array], needed: Shapes, optional: Callable[[str], bool]) -> None:
    """Raise ValueError with the first differences in names and shapes; `optional` names can be missing or extra."""
    differences = [f"{name} is missing" for name in needed if name not in arrays and not optional(name)]
    differences += [f"{name} is not expected" for name in arrays if name not in needed and not optional(name)]
    differences += [
        f"{name} has the shape {arrays[name].shape} instead of {shape}"
        for name, shape in needed.items()
        if name in arrays and arrays[name].shape != shape
    ]
    if differences:
        more = len(differences) - _SHOWN
        raise ValueError("; ".join(differences[:_SHOWN]) + (f"; and {more} more differences" if more > 0 else ""))


def _is_imgclsmob_fastscnn(weights: Mapping[str, Array]) -> bool:
    return any(name.startswith(_FASTSCNN_STEMS) for name in weights) and any(
        name.startswith("fusion.") for name in weights
    )


def _rename_fastscnn(name: str) -> str:
    for stem in _FASTSCNN_STEMS:
        name = f"stem.{name.removeprefix(stem)}" if name.startswith(stem) else name
    layer, _, last = name.rpartition(".")
    return f"{_FASTSCNN_LAYERS[layer]}.{last}" if layer in _FASTSCNN_LAYERS else name


def _fastscnn_layers() -> Iterator[tuple[str, str]]:
    """Yield the name of every layer in imgclsmob and in GluonCV."""
    for source, target, first in _fastscnn_blocks():  # a convolution, followed by its batch normalization
        yield f"{source}.conv", f"{target}.{first}"
        yield f"{source}.bn", f"{target}.{first + 1}"
    yield "fusion.low_pw_conv.conv", "feature_fusion.conv_lower_res"
    yield "fusion.low_pw_conv.bn", "feature_fusion.bn"
    yield "fusion.high_conv.conv", "feature_fusion.conv_higher_res"
    yield "fusion.high_conv.bn", "feature_fusion.bn_high"
    yield "head.conv3", "classifier.conv"
    yield "aux_head.conv2", "auxlayer.block.4"


def _fastscnn_blocks() -> Iterator[tuple[str, str, int]]:
    """Yield every pair of convolution and batch normalization: imgclsmob name, GluonCV sequence, index in it."""
    yield "stem.conv1", "learning_to_downsample.conv.block", 0
    separable = {f"stem.conv{number + 1}": f"learning_to_downsample.dsconv{number}" for number in (1, 2)}
    separable |= {f"head.conv{number}": f"classifier.dsconv{number}" for number in (1, 2)}
    for source, target in separable.items():
        yield f"{source}.dw_conv", f"{target}.conv", 0
        yield f"{source}.pw_conv", f"{target}.conv", 3
    for stage in range(3):
        for number in range(3):
            source, target = f"features.features.{stage}.{number}", f"bottleneck{stage + 1}.{number}.block"
            yield f"{source}.conv1", f"global_feature_extractor.{target}.0.block", 0
            yield f"{source}.conv2", f"global_feature_extractor.{target}.1.conv", 0
            yield f"{source}.conv3", f"global_feature_extractor.{target}", 2
    for branch in range(1, 5):  # branch 0 contains the features themselves
        yield f"pool.branches.{branch}.conv", f"global_feature_extractor.ppm.conv{branch}", 0
    yield "pool.conv", "global_feature_extractor.ppm.out.block", 0
    yield "fusion.low_dw_conv", "feature_fusion.dwconv.conv", 0
    yield "aux_head.conv1", "auxlayer.block", 0


_FASTSCNN_LAYERS = dict(_fastscnn_layers())
