"""A few steps and pictures on given devices: the same functions for GPUs, and for CPUs where they are tested."""

from __future__ import annotations

import time
from collections.abc import Callable

import mxnet as mx
import numpy as np

from container.data.batches import Batch
from container.hyperparameters import load
from container.mx.inference.evaluation import MXNetEvaluator
from container.mx.networks.segmentation import SegmentationNetwork, initialize_weights
from container.mx.trainer import Trainer

CLASSES = 3


def make_batch(size: int, seed: int) -> Batch:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, (size, 64, 64)).astype(np.uint8)
    labels[0, :40] = 255  # devices get unequal numbers of labeled pixels
    return Batch(rng.integers(0, 256, (size, 64, 64, 3), np.uint8), labels)


def steady_network(devices: list[mx.Context], **norm: object) -> SegmentationNetwork:
    """Make a network from one seed, without dropout; without `norm` its batch statistics are fixed, too."""
    mx.random.seed(3)
    settings = norm or {"norm_kwargs": {"use_global_stats": True}}
    network = SegmentationNetwork("fcn", "resnet-50", CLASSES, **settings)
    initialize_weights(network)
    for name, parameter in network._collect_params_with_prefix().items():
        if name.endswith("bn3.gamma"):  # without batch statistics the residual branches would add up to millions
            parameter.set_data(mx.nd.full(parameter.shape, 0.1))
    for block in (network.head, network.auxlayer):
        block.block[3]._rate = 0.0
    network.collect_params().reset_ctx(devices)
    network.hybridize()
    return network


def synchronized(devices: list[mx.Context]) -> dict[str, object]:
    """Return the settings of batch normalization over all devices."""
    return {"norm_layer": mx.gluon.contrib.nn.SyncBatchNorm, "norm_kwargs": {"num_devices": len(devices)}}


def train_steps(
    network: SegmentationNetwork, devices: list[mx.Context], batch_size: int, steps: int, **changes: object
) -> tuple[list[float], dict[str, np.ndarray]]:
    """Make a few steps; returns losses and weights, after a check that all devices hold the same."""
    settings = {"num_classes": CLASSES, "num_training_samples": batch_size, "_gradient_scale": "mean"}
    job = load({**settings, **changes})
    trainer = Trainer(network, job, devices)
    losses = [
        float(sum(part.asscalar() for part in trainer.step(make_batch(batch_size, seed), 0.01)))
        for seed in range(steps)
    ]
    weights: dict[str, np.ndarray] = {}
    for name, parameter in network._collect_params_with_prefix().items():
        copies = [parameter.data(device).asnumpy() for device in devices]
        if not name.endswith(("running_mean", "running_var")):  # each device has its own, unless they are synchronized
            assert all(np.array_equal(copies[0], copy) for copy in copies), f"{name} differs between devices"
        weights[name] = copies[0]
    return losses, weights


def seconds_of_sizes(evaluator: MXNetEvaluator, sizes: list[tuple[int, int]]) -> list[tuple[float, float]]:
    """Return for each size the seconds of its first picture and of its second."""
    return [(_seconds(evaluator, size), _seconds(evaluator, size)) for size in sizes]


def memory_of_sizes(evaluator: MXNetEvaluator, sizes: list[tuple[int, int]], used: Callable[[], int]) -> list[int]:
    """Return what `used` says after each size, every device having had a picture of it."""
    found = []
    for size in sizes:
        _seconds(evaluator, size)
        found.append(used())
    return found


def _seconds(evaluator: MXNetEvaluator, size: tuple[int, int]) -> float:
    images = [np.zeros((*size, 3), np.uint8)] * evaluator.batch_size
    start = time.monotonic()
    assert [answer[0].shape for answer in evaluator.predict(images)] == [size] * evaluator.batch_size  # type: ignore[index]
    return time.monotonic() - start
