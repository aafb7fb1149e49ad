"""A drawn data set in the platform's layout, one of whose classes has half a percent of the pixels."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from PIL import Image

NUM_CLASSES = 4  # ground, blocks, discs, and small crosses: the rare ones
_WIDTH, _HEIGHT = 192, 144
_COLOURS = {1: (150, 115, 90), 2: (90, 115, 150), 3: (115, 150, 90)}  # on average; a shape's lies within 35 of it
_LEAST_SHARE = 0.0032  # of the rare class: the last cross makes about 0.005 of it


def draw_set(folder: Path, train: int = 64, validation: int = 24) -> None:
    """Write channels train and validation with their annotations below `folder`."""
    rng = np.random.default_rng(0)
    for channel, count in (("train", train), ("validation", validation)):
        images, annotations = folder / channel, folder / f"{channel}_annotation"
        images.mkdir(parents=True, exist_ok=True)
        annotations.mkdir(parents=True, exist_ok=True)
        for number in range(count):
            image, labels = _draw(rng)
            Image.fromarray(image).save(images / f"{number}.jpg", quality=92)
            Image.fromarray(labels).save(annotations / f"{number}.png")


def _draw(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw one picture: shapes on a noisy ground, whose classes are told apart by form, and less surely by color."""
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
            image[shape == 1] = _COLOURS[label] + rng.integers(-35, 36, 3)
    wanted = _LEAST_SHARE * labels.size
    while (labels == 3).sum() < wanted:
        x, y, arm = int(rng.integers(9, _WIDTH - 9)), int(rng.integers(9, _HEIGHT - 9)), int(rng.integers(5, 9))
        shape = np.zeros_like(labels)
        cv2.line(shape, (x - arm, y), (x + arm, y), 1, 3)
        cv2.line(shape, (x, y - arm), (x, y + arm), 1, 3)
        labels[shape == 1] = 3
        image[shape == 1] = _COLOURS[3] + rng.integers(-35, 36, 3)
    return (image + rng.normal(0, 12, image.shape)).clip(0, 255).astype(np.uint8), labels
