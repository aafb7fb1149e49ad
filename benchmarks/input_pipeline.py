"""Decoding and augmentation on one core, compared with the GluonCV transforms: `python -m benchmarks.input_pipeline`.

Both start from the bytes of 500×375 JPEG and PNG files. GluonCV produces a normalized float32 array, and this container
uint8 (its model normalizes on the device).
"""

from __future__ import annotations

import argparse
import io
import os
import random

os.environ["OMP_NUM_THREADS"] = "1"  # before MXNet and OpenCV are imported

import cv2
import mxnet as mx
import numpy as np
from gluoncv.data.segbase import SegmentationDataset
from mxnet.gluon.data.vision import transforms
from PIL import Image

from benchmarks.support.images import make_pairs
from benchmarks.support.measure import interleave, medians, print_ratios, timed
from container.codecs.images import decode_annotation, decode_image
from container.data.augment import random_crop
from container.data.labels.label_maps import LabelMap

BASE_SIZE, CROP_SIZE = 520, 240
Pair = tuple[bytes, bytes]


class GluonCVTransforms:
    """The transforms of a GluonCV segmentation data set, on bytes instead of files."""

    def __init__(self) -> None:
        self._dataset = SegmentationDataset(".", "train", "train", None, BASE_SIZE, CROP_SIZE)
        normalize = transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
        self._to_input = transforms.Compose([transforms.ToTensor(), normalize])

    def __call__(self, pair: Pair) -> None:
        image = Image.open(io.BytesIO(pair[0])).convert("RGB")
        image, mask = self._dataset._sync_transform(image, Image.open(io.BytesIO(pair[1])))
        self._to_input(image).wait_to_read()
        mask.wait_to_read()


def decode_and_crop(pair: Pair, rng: np.random.Generator, label_map: LabelMap) -> None:
    """Decode a pair and augment it, as this container does."""
    labels = label_map.interpret(decode_annotation(pair[1]), 254)
    labels.check(254)
    random_crop(decode_image(pair[0]), labels.image(), BASE_SIZE, CROP_SIZE, rng)


def main() -> None:
    """Measure, and print the milliseconds per image."""
    parser = argparse.ArgumentParser(description="Compare decoding and augmentation with the GluonCV transforms.")
    parser.add_argument("--images", type=int, default=40, help="pairs per round (%(default)s)")
    parser.add_argument("--rounds", type=int, default=9, help="rounds per variant, interleaved (%(default)s)")
    arguments = parser.parse_args()
    random.seed(0)
    cv2.setNumThreads(1)
    mx.random.seed(0)
    pairs, gluoncv = make_pairs(arguments.images), GluonCVTransforms()
    rng, label_map = np.random.default_rng(0), LabelMap()
    variants = {
        "GluonCV": timed(lambda: [gluoncv(pair) for pair in pairs]),
        "this container": timed(lambda: [decode_and_crop(pair, rng, label_map) for pair in pairs]),
    }
    seconds = medians(interleave(variants, arguments.rounds))
    print_ratios({name: len(pairs) / value for name, value in seconds.items()}, "images/s", "GluonCV")


if __name__ == "__main__":
    main()
