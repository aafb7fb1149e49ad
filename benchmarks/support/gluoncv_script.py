"""The GluonCV 0.10 training script (scripts/segmentation/train.py), for data in the layout of SageMaker AI.

Data set, transforms, DataLoader, loss, schedule, wrappers, and loop are those of the script. The model consists of the
same blocks as the model of this container, resized to the crop as in GluonCV, so that both start from the same weights
and one program evaluates both.
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

from container.mx.networks.segmentation import SegmentationNetwork, assign_weights, initialize_weights
from container.mx.pretrained import read_pretrained


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Arguments of the script."""

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
    """Pairs of files, as GluonCV data sets read them."""

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
        target = np.array(mask).astype("int32")  # as in the VOC data set of GluonCV
        target[target == 255] = -1
        return mx.nd.array(target, mx.cpu(0))


class CropNetwork(gluon.HybridBlock):
    """Both heads at the size of the crop, for normalized images, as the GluonCV models return them."""

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


def create_network(recipe: Recipe, pretrained: Path | None) -> SegmentationNetwork:
    """Return a model with the initial weights of a job of this container with the same seed."""
    mx.random.seed(recipe.seed)
    np.random.seed(recipe.seed)
    network = SegmentationNetwork(recipe.algorithm, recipe.backbone, recipe.num_classes)
    initialize_weights(network)
    if pretrained:
        assign_weights(network, read_pretrained(pretrained, recipe.backbone))
    return network


class ScriptTrainer:
    """The Trainer of the script."""

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
        self.iteration_seconds: list[float] = []

    def train_epoch(self) -> tuple[float, float, int]:
        """Train one epoch, and return its mean loss, seconds, and number of samples."""
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
            self.iteration_seconds.append(now - before)
            before = now
        return losses_sum / max(1, count), time.perf_counter() - begun, samples


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, write the last weights, and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("weights", type=Path, help="file to write")
    parser.add_argument("recipe", help="JSON")
    parser.add_argument("--pretrained", type=Path)
    parsed = parser.parse_args(arguments)
    recipe = Recipe(**json.loads(parsed.recipe))
    network = create_network(recipe, parsed.pretrained)
    script = ScriptTrainer(recipe, parsed.folder, network)
    epochs = [script.train_epoch() for _ in range(recipe.epochs)]
    network.save_parameters(str(parsed.weights))
    print(
        json.dumps(
            {
                "loss": [loss for loss, _, _ in epochs],
                "seconds": [seconds for _, seconds, _ in epochs],
                "samples": [samples for _, _, samples in epochs],
                "iteration": script.iteration_seconds,
                "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            }
        )
    )


if __name__ == "__main__":
    main()
