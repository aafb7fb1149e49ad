"""Layer names of other libraries, and the comparison of names and shapes with a model."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from container.arrays import Array
from container.mx.weights import fastscnn_names
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


def to_gluoncv(weights: Mapping[str, Array]) -> dict[str, Array]:
    """Return the arrays with GluonCV names; names without a matching rule are not changed.

    Raises ValueError if two arrays get the same name.
    """
    rules = _IMGCLSMOB + (_ATROUS if any(name.startswith("pool.branches.0.") for name in weights) else _PYRAMID)
    is_fast = fastscnn_names.is_imgclsmobs(weights)
    renamed: dict[str, Array] = {}
    for name, array in weights.items():
        if is_fast:
            target = fastscnn_names.to_gluoncv(name)
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
