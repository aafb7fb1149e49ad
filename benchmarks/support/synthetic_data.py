"""A synthetic data set in the layout of SageMaker AI. One of its classes has 0.5% of the pixels."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from PIL import Image

NUM_CLASSES = 4  # background, rectangles, circles, and small crosses (the rare class)
_WIDTH, _HEIGHT = 192, 144
_COLORS = {1: (150, 115, 90), 2: (90, 115, 150), 3: (115, 150, 90)}  # mean; a shape differs by up to 35
_MIN_SHARE = 0.0032  # of the rare class; with the last cross, its share is about 0.005


def write_data_set(folder: Path, train: int = 64, validation: int = 24) -> None:
    """Write the channels train and validation, and their annotation channels, to `folder`."""
    rng = np.random.default_rng(0)
    for channel, count in (("train", train), ("validation", validation)):
        images, annotations = folder / channel, folder / f"{channel}_annotation"
        images.mkdir(parents=True, exist_ok=True)
        annotations.mkdir(parents=True, exist_ok=True)
        for number in range(count):
            image, labels = _make_pair(rng)
            Image.fromarray(image).save(images / f"{number}.jpg", quality=92)
            Image.fromarray(labels).save(annotations / f"{number}.png")


def _make_pair(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return an image with noise and its labels. The shape identifies a class, and its color only partly."""
    labels = np.zeros((_HEIGHT, _WIDTH), np.uint8)
    image = np.full((_HEIGHT, _WIDTH, 3), rng.integers(60, 120, 3), np.float32)
    for label, count in ((1, 3), (2, 3)):
        for _ in range(count):
            shape = np.zeros_like(labels)
            center = int(rng.integers(_WIDTH)), int(rng.integers(_HEIGHT))
            size = int(rng.integers(12, 28))
            if label == 1:
                cv2.rectangle(shape, (center[0] - size, center[1] - size), (center[0] + size, center[1] + size), 1, -1)
            else:
                cv2.circle(shape, center, size, 1, -1)
            labels[shape == 1] = label
            image[shape == 1] = _COLORS[label] + rng.integers(-35, 36, 3)
    min_pixels = _MIN_SHARE * labels.size
    while (labels == 3).sum() < min_pixels:
        x, y, arm = int(rng.integers(9, _WIDTH - 9)), int(rng.integers(9, _HEIGHT - 9)), int(rng.integers(5, 9))
        shape = np.zeros_like(labels)
        cv2.line(shape, (x - arm, y), (x + arm, y), 1, 3)
        cv2.line(shape, (x, y - arm), (x, y + arm), 1, 3)
        labels[shape == 1] = 3
        image[shape == 1] = _COLORS[3] + rng.integers(-35, 36, 3)
    return (image + rng.normal(0, 12, image.shape)).clip(0, 255).astype(np.uint8), labels
