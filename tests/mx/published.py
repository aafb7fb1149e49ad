"""Weight files as others publish them: random numbers under GluonCV's, timm's and imgclsmob's names.

The names come from the published definitions, written down here a second time and the other way round than the loader.
"""

from __future__ import annotations

from pathlib import Path

import mxnet as mx
import numpy as np
import safetensors.numpy
from gluoncv.model_zoo import resnetv1b

GLUONCV = {
    "resnet-18": "resnet18_v1b",
    "resnet-34": "resnet34_v1b",
    "resnet-50": "resnet50_v1s",
    "resnet-101": "resnet101_v1s",
}
BATCH_NORM = ("gamma", "beta", "running_mean", "running_var")

Weights = dict[str, np.ndarray]


def random_weights(backbone: str, seed: int = 0) -> Weights:
    """Draw weights for GluonCV's own ImageNet network, under its own names."""
    network = getattr(resnetv1b, GLUONCV[backbone])(pretrained=False)
    network.initialize()
    network.infer_shape(mx.nd.zeros((1, 3, 32, 32)))
    rng = np.random.default_rng(seed)
    return {name: _draw(rng, name, value.shape) for name, value in network._collect_params_with_prefix().items()}


def _draw(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Draw numbers with which a network can be trained: none is zero, and sums stay of one size."""
    numbers = rng.random(shape, np.float32)
    if name.endswith((".running_var", ".gamma")):
        return numbers / 10 + np.float32(0.5)
    return (numbers - np.float32(0.5)) * np.float32(np.prod(shape[1:]) ** -0.5)


def write_gluoncv(path: Path, weights: Weights) -> None:
    mx.nd.save(str(path), {name: mx.nd.array(array) for name, array in weights.items()})


def write_timm(path: Path, weights: Weights) -> None:
    """Write as PyTorch names it: a batch norm has weight and bias, and a counter."""
    tensors: dict[str, np.ndarray] = {}
    for name, array in weights.items():
        prefix, last = name.rsplit(".", 1)
        tensors[".".join((prefix, {"gamma": "weight", "beta": "bias"}.get(last, last)))] = array
        if last == "running_var":
            tensors[f"{prefix}.num_batches_tracked"] = np.array(7)
    safetensors.numpy.save_file(tensors, str(path))


def write_imgclsmob(path: Path, weights: Weights, trunk: str = "features") -> None:
    deep_stem = "conv1.0.weight" in weights
    write_gluoncv(path, {imgclsmob_name(name, trunk, deep_stem): array for name, array in weights.items()})


def imgclsmob_name(name: str, trunk: str, deep_stem: bool) -> str:
    """Name a layer as imgclsmob's definitions do."""
    stem = {"conv1": "conv.conv", "bn1": "conv.bn"}
    if deep_stem:
        stem = {"conv1.0": "conv1.conv", "conv1.1": "conv1.bn", "conv1.3": "conv2.conv", "conv1.4": "conv2.bn"}
        stem |= {"conv1.6": "conv3.conv", "bn1": "conv3.bn"}
    prefix, last = name.rsplit(".", 1)
    if prefix in stem:
        return f"{trunk}.0.{stem[prefix]}.{last}"
    if prefix in HEADS:
        return f"{HEADS[prefix]}.{last}"
    stage, number, *layer = prefix.removeprefix("layer").split(".")
    kind = "bn" if last in BATCH_NORM else "conv"
    inner = "identity_conv" if layer[0] == "downsample" else f"body.conv{layer[0][-1]}"
    return f"{trunk}.{stage}.{number}.{inner}.{kind}.{last}"


HEADS = {
    "fc": "output.1",
    "head.block.0": "final_block.conv1.conv",
    "head.block.1": "final_block.conv1.bn",
    "head.block.4": "final_block.conv2",
    "auxlayer.block.0": "aux_block.conv1.conv",
    "auxlayer.block.1": "aux_block.conv1.bn",
    "auxlayer.block.4": "aux_block.conv2",
    "head.aspp.project.0": "pool.conv.conv",
    "head.aspp.project.1": "pool.conv.bn",
    "head.aspp.concurent.4.gap.1": "pool.branches.4.conv.conv",
    "head.aspp.concurent.4.gap.2": "pool.branches.4.conv.bn",
    **{f"head.psp.conv{bins}.0": f"pool.branches.{bins}.conv.conv" for bins in range(1, 5)},
    **{f"head.psp.conv{bins}.1": f"pool.branches.{bins}.conv.bn" for bins in range(1, 5)},
    **{f"head.aspp.concurent.{number}.0": f"pool.branches.{number}.conv" for number in range(4)},
    **{f"head.aspp.concurent.{number}.1": f"pool.branches.{number}.bn" for number in range(4)},
}
