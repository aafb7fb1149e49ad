"""Synthetic images of the benchmarks: photograph-like JPEG bytes, and pairs of the size of Pascal VOC."""

from __future__ import annotations

import io

import cv2
import numpy as np
from PIL import Image

WIDTH, HEIGHT, CLASSES = 500, 375, 21


def make_image(height: int, width: int, seed: int = 0) -> bytes:
    """Return a smooth JPEG image."""
    coarse = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), np.uint8)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return bytes(cv2.imencode(".jpg", smooth)[1].tobytes())


def make_pairs(count: int) -> list[tuple[bytes, bytes]]:
    """Return noisy JPEG images with palette PNG annotations."""
    rng = np.random.default_rng(0)
    pairs = []
    for _ in range(count):
        coarse = rng.integers(0, 256, (12, 16, 3), np.uint8)
        image = cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC).astype(np.int16)
        image = (image + rng.normal(0, 8, image.shape)).clip(0, 255).astype(np.uint8)
        coarse_labels = rng.integers(0, CLASSES, (6, 8), np.uint8)
        labels = cv2.resize(coarse_labels, (WIDTH, HEIGHT), interpolation=cv2.INTER_NEAREST)
        jpeg, annotation = io.BytesIO(), io.BytesIO()
        Image.fromarray(image).save(jpeg, "JPEG", quality=90)
        Image.fromarray(labels, "L").convert("P").save(annotation, "PNG")
        pairs.append((jpeg.getvalue(), annotation.getvalue()))
    return pairs
