"""Decoding and augmentation, one core: ours beside GluonCV's own transforms, interleaved, on 500×375 JPEG + PNG pairs.

Both start from the files' bytes and end where a batch is put together: GluonCV's with a normalized float32
array, ours with uint8 (the network normalizes on the device). Prints medians and their ratio.
"""

from __future__ import annotations

import argparse
import io
import os
import random
import statistics
import time
from collections.abc import Callable

os.environ["OMP_NUM_THREADS"] = "1"  # before either framework is imported: the figures are per core

import cv2
import mxnet as mx
import numpy as np
from gluoncv.data.segbase import SegmentationDataset
from mxnet.gluon.data.vision import transforms
from PIL import Image

from benchmarks.peers.pictures import make_pairs
from container.codecs.images import decode_annotation, decode_image
from container.data.augment import random_crop
from container.data.labels.label_maps import LabelMap

BASE_SIZE, CROP_SIZE = 520, 240


def gluoncvs() -> Callable[[tuple[bytes, bytes]], object]:
    """GluonCV's segmentation data set, on bytes instead of files."""
    dataset = SegmentationDataset(".", "train", "train", None, BASE_SIZE, CROP_SIZE)
    normalize = transforms.Compose(
        [transforms.ToTensor(), transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])]
    )

    def load(pair: tuple[bytes, bytes]) -> object:
        image = Image.open(io.BytesIO(pair[0])).convert("RGB")
        image, mask = dataset._sync_transform(image, Image.open(io.BytesIO(pair[1])))
        image = normalize(image)
        image.wait_to_read()
        mask.wait_to_read()
        return image, mask

    return load


def ours() -> Callable[[tuple[bytes, bytes]], object]:
    """Our own way from bytes to a crop."""
    rng = np.random.default_rng(0)
    label_map = LabelMap()

    def load(pair: tuple[bytes, bytes]) -> object:
        reading = label_map.interpret(decode_annotation(pair[1]), 254)
        reading.check(254)
        return random_crop(decode_image(pair[0]), reading.image(), BASE_SIZE, CROP_SIZE, rng)

    return load


def main() -> None:
    """Time both by turns and print images per second."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=40, help="pairs per round (%(default)s)")
    parser.add_argument("--rounds", type=int, default=9, help="rounds of each, interleaved (%(default)s)")
    arguments = parser.parse_args()
    random.seed(0)
    cv2.setNumThreads(1)
    mx.random.seed(0)
    pairs = make_pairs(arguments.images)
    loads = {"GluonCV": gluoncvs(), "ours": ours()}
    rates: dict[str, list[float]] = {name: [] for name in loads}
    for _ in range(arguments.rounds):
        for name, load in loads.items():
            start = time.perf_counter()
            for pair in pairs:
                load(pair)
            rates[name].append(len(pairs) / (time.perf_counter() - start))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    for name, median in medians.items():
        print(f"{name:8} {median:7.0f} images/s on one core (median of {arguments.rounds})")
    print(f"ratio    {medians['ours'] / medians['GluonCV']:7.2f}")


if __name__ == "__main__":
    main()
