"""Pictures for the benchmarks, of the kind and size of Pascal VOC's."""

from __future__ import annotations

import io

import cv2
import numpy as np
from PIL import Image

WIDTH, HEIGHT, CLASSES = 500, 375, 21


def make_pairs(count: int) -> list[tuple[bytes, bytes]]:
    """Make photograph-like JPEGs with palette-PNG annotations, the size of Pascal VOC's."""
    rng = np.random.default_rng(0)
    pairs = []
    for _ in range(count):
        coarse = rng.integers(0, 256, (12, 16, 3), np.uint8)
        image = cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC).astype(np.int16)
        image = (image + rng.normal(0, 8, image.shape)).clip(0, 255).astype(np.uint8)
        labels = cv2.resize(
            rng.integers(0, CLASSES, (6, 8), np.uint8), (WIDTH, HEIGHT), interpolation=cv2.INTER_NEAREST
        )
        photograph, annotation = io.BytesIO(), io.BytesIO()
        Image.fromarray(image).save(photograph, "JPEG", quality=90)
        mask = Image.fromarray(labels, "L").convert("P")
        mask.save(annotation, "PNG")
        pairs.append((photograph.getvalue(), annotation.getvalue()))
    return pairs
