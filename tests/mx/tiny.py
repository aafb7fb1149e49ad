"""A network of the trainer's kind that is small enough for many steps in a test."""

from __future__ import annotations

from typing import Any

import mxnet as mx
import numpy as np
from mxnet import gluon
from mxnet.gluon import nn

from container.data.batches import Batch
from container.hyperparameters import Hyperparameters, load
from container.mx.networks.segmentation import MEAN, STD, SegmentationNetwork
from container.mx.trainer import Trainer

CLASSES = 3


class TinyNetwork(SegmentationNetwork):
    """Three convolutions with batch normalization and dropout, and both heads."""

    def __init__(self, **norm: Any) -> None:
        gluon.HybridBlock.__init__(self)
        self.algorithm, self.backbone, self.num_classes = "fcn", "tiny", CLASSES
        self.stem = nn.HybridSequential()
        self.stem.add(nn.Conv2D(6, 3, 2, 1, in_channels=3), nn.BatchNorm(in_channels=6, **norm), nn.Activation("relu"))
        self.stage3 = nn.Conv2D(6, 3, 2, 1, in_channels=6)
        self.stage4 = nn.Conv2D(6, 3, 2, 1, in_channels=6)
        self.head = nn.HybridSequential()
        self.head.add(nn.Dropout(0.2), nn.Conv2D(CLASSES, 1, in_channels=6))
        self.auxlayer = nn.HybridSequential()
        self.auxlayer.add(nn.Conv2D(CLASSES, 1, in_channels=6))
        self.head.collect_params().setattr("lr_mult", 10)

    def encode(self, F: Any, images: Any) -> tuple[Any, Any, Any]:
        x = F.image.normalize(F.image.to_tensor(images), mean=MEAN, std=STD)
        stage3 = self.stage3(self.stem(x))
        return x, stage3, self.stage4(stage3)


def cpus(count: int) -> list[mx.Context]:
    return [mx.cpu(index) for index in range(count)]


def tiny_trainer(devices: list[mx.Context], job: Hyperparameters, **norm: Any) -> Trainer:
    """Make a trainer of a tiny network whose weights are always the same."""
    mx.random.seed(3)
    np.random.seed(3)
    network = TinyNetwork(**norm)
    network.initialize(mx.init.Xavier())
    network.collect_params().reset_ctx(devices)
    network.hybridize()
    return Trainer(network, job, devices)


def tiny_job(**changes: object) -> Hyperparameters:
    return load({"num_classes": CLASSES, "num_training_samples": 4, "mini_batch_size": 4, **changes})


def batch(size: int, seed: int = 0) -> Batch:
    """A batch of 32×32 whose images have unequal numbers of labeled pixels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, (size, 32, 32)).astype(np.uint8)
    labels[0, :20] = 255
    return Batch(rng.integers(0, 256, (size, 32, 32, 3), np.uint8), labels)


def train(trainer: Trainer, batches: list[Batch], first: int = 0, rate: float = 0.01) -> list[float]:
    """Make a step with each batch, the first of which is step `first` of the job; returns the losses."""
    losses = []
    for number, each in enumerate(batches, first):
        trainer.seed(1, 0, number)
        losses.append(float(sum(part.asscalar() for part in trainer.step(each, rate))))
    return losses


def copies(trainer: Trainer) -> dict[str, list[np.ndarray]]:
    """Every parameter, as each device holds it."""
    parameters = trainer.network._collect_params_with_prefix()
    return {name: [array.asnumpy() for array in parameter.list_data()] for name, parameter in parameters.items()}
