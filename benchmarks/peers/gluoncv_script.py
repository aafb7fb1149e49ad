"""GluonCV's own training script, scripts/segmentation/train.py of 0.10, on a folder in the platform's layout.

Its data set, transforms, DataLoader, loss, schedule, wrappers and loop, line by line as it runs them; the network is
GluonCV's blocks as ours are put together, resized to the crop as GluonCV does, so that both start from the same weights
and the same scorer reads both.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import random
import resource
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np
from gluoncv.data.segbase import SegmentationDataset
from gluoncv.loss import MixSoftmaxCrossEntropyLoss
from gluoncv.utils import LRScheduler
from gluoncv.utils.parallel import DataParallelCriterion, DataParallelModel
from mxnet import autograd, gluon
from mxnet.gluon.data.vision import transforms
from PIL import Image

from container.mx.networks.segmentation import SegmentationNetwork, initialize_weights
from container.mx.pretrained import load_pretrained


@dataclasses.dataclass(frozen=True)
class Recipe:
    """The script's arguments."""

    algorithm: str
    backbone: str
    num_classes: int
    base_size: int
    crop_size: int
    epochs: int
    batch_size: int
    lr: float
    workers: int
    seed: int
    devices: int = 1
    momentum: float = 0.9
    weight_decay: float = 0.0001
    aux_weight: float = 0.5


class Folder(SegmentationDataset):
    """Pairs of files, as GluonCV's own data sets read them."""

    NUM_CLASS = 0

    def __init__(self, folder: Path, transform: Any, base_size: int, crop_size: int) -> None:
        super().__init__(str(folder), "train", "train", transform, base_size, crop_size)
        self.images = sorted((folder / "train").iterdir())
        self.masks = [folder / "train_annotation" / f"{path.stem}.png" for path in self.images]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        image = Image.open(self.images[index]).convert("RGB")
        image, mask = self._sync_transform(image, Image.open(self.masks[index]))
        return self.transform(image), mask

    def _mask_transform(self, mask: Any) -> Any:
        target = np.array(mask).astype("int32")  # as its VOC data set does
        target[target == 255] = -1
        return mx.nd.array(target, mx.cpu(0))


class CropNetwork(gluon.HybridBlock):
    """Both heads at the crop's size, from normalized images, as GluonCV's FCN, PSPNet and DeepLabV3 answer."""

    def __init__(self, network: SegmentationNetwork, crop_size: int) -> None:
        super().__init__()
        self.network = network
        self._size = {"height": crop_size, "width": crop_size}

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        net = self.network
        stage2 = net.layer2(net.layer1(net.maxpool(net.relu(net.bn1(net.conv1(x))))))
        stage3 = net.layer3(stage2)
        heads = net.decode(F, net.layer4(stage3)), net.auxlayer(stage3)
        return tuple(F.contrib.BilinearResize2D(head, **self._size) for head in heads)


def start(recipe: Recipe, pretrained: Path | None) -> SegmentationNetwork:
    """Draw the weights that our job of the same seed begins with."""
    mx.random.seed(recipe.seed)
    np.random.seed(recipe.seed)
    network = SegmentationNetwork(recipe.algorithm, recipe.backbone, recipe.num_classes)
    initialize_weights(network)
    if pretrained:
        load_pretrained(network, recipe.backbone, pretrained)
    return network


class Script:
    """The script's Trainer."""

    def __init__(self, recipe: Recipe, folder: Path, network: SegmentationNetwork) -> None:
        random.seed(recipe.seed)
        self.recipe = recipe
        normalize = transforms.Compose(
            [transforms.ToTensor(), transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])]
        )
        devices = [mx.cpu(number) for number in range(recipe.devices)]
        self.train_data = gluon.data.DataLoader(
            Folder(folder, normalize, recipe.base_size, recipe.crop_size),
            recipe.batch_size,
            shuffle=True,
            last_batch="rollover",
            num_workers=recipe.workers,
        )
        model = CropNetwork(network, recipe.crop_size)
        model.hybridize()
        self.net = DataParallelModel(model, devices)
        self.criterion = DataParallelCriterion(MixSoftmaxCrossEntropyLoss(True, aux_weight=recipe.aux_weight), devices)
        scheduler = LRScheduler(
            mode="poly",
            base_lr=recipe.lr,
            nepochs=recipe.epochs,
            iters_per_epoch=max(1, len(self.train_data)),
            power=0.9,
        )
        settings = {"lr_scheduler": scheduler, "wd": recipe.weight_decay, "momentum": recipe.momentum}
        self.optimizer = gluon.Trainer(
            self.net.module.collect_params(), "sgd", {**settings, "learning_rate": recipe.lr}, kvstore="device"
        )
        self.step_seconds: list[float] = []

    def training(self) -> tuple[float, float, int]:
        """Make one epoch; returns its mean loss, its seconds and its samples."""
        begun, losses_sum, samples, count = time.perf_counter(), 0.0, 0, 0
        before = begun
        for data, target in self.train_data:
            with autograd.record(True):
                outputs = self.net(data)
                losses = self.criterion(outputs, target)
                mx.nd.waitall()
                autograd.backward(losses)
            self.optimizer.step(self.recipe.batch_size)
            for loss in losses:
                losses_sum += float(np.mean(loss.asnumpy())) / len(losses)
            mx.nd.waitall()
            samples, count = samples + len(data), count + 1
            now = time.perf_counter()
            self.step_seconds.append(now - before)
            before = now
        return losses_sum / max(1, count), time.perf_counter() - begun, samples


def main(arguments: Sequence[str] | None = None) -> None:
    """Train as the recipe says; writes the last weights, and prints one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("weights", type=Path, help="file to write")
    parser.add_argument("recipe", help="JSON")
    parser.add_argument("--pretrained", type=Path)
    given = parser.parse_args(arguments)
    recipe = Recipe(**json.loads(given.recipe))
    network = start(recipe, given.pretrained)
    script = Script(recipe, given.folder, network)
    epochs = [script.training() for _ in range(recipe.epochs)]
    network.save_parameters(str(given.weights))
    print(
        json.dumps(
            {
                "loss": [loss for loss, _, _ in epochs],
                "seconds": [seconds for _, seconds, _ in epochs],
                "samples": [samples for _, _, samples in epochs],
                "step": script.step_seconds,
                "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            }
        )
    )


if __name__ == "__main__":
    main()
