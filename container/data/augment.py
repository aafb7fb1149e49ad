"""Augmentation: from a decoded pair to a square crop, for training and validation.

The region of the crop is cut out of the decoded image first, and resampled once. The processing time depends on the
size of the crop, not on the size of the image.
"""

from __future__ import annotations

import cv2
import numpy as np

from container.arrays import Array, Uint8Array
from container.data.augmentation_config import MEAN_COLOR, AugmentationConfig, jitter, mask_squares, rotated_crop
from container.data.labels.decoding import IGNORE

AS_GLUONCV = AugmentationConfig()


def random_crop(
    image: Uint8Array,
    labels: Uint8Array,
    base_size: int,
    crop_size: int,
    rng: np.random.Generator,
    config: AugmentationConfig = AS_GLUONCV,
    anchor: tuple[int, int] | None = None,
) -> tuple[Array, Array]:
    """Augment as GluonCV does: mirror, scale the long side to base_size × U(0.5, 2), crop, and blur half of the crops.

    Takes uint8 (H, W, 3) and (H, W), returns uint8 (crop_size, crop_size, 3) and (crop_size, crop_size). Pixels outside
    of the scaled image have the mean color and the label 255. `config` can contain further operations. The center of
    the crop is the pixel `anchor` (row, column) if it is set, except near the borders of the image.
    """
    height, width = labels.shape
    scale = base_size * rng.uniform(*config.scale) / max(height, width)
    side = crop_size / scale  # of the crop, in pixels of the decoded image
    rows = _choose_span(height, side, rng, anchor and anchor[0])
    columns = _choose_span(width, side, rng, anchor and anchor[1])
    mirrored = rng.random() < 0.5
    blur = rng.random() if rng.random() < 0.5 else 0.0
    if config.rotation:
        degrees = rng.uniform(-config.rotation, config.rotation)
        crop, crop_labels = rotated_crop(image, labels, (rows, columns), scale, anchor, degrees, crop_size)
    else:
        crop, crop_labels = _resample(image[rows, columns], labels[rows, columns], scale, crop_size)
    if mirrored:
        crop, crop_labels = crop[:, ::-1], crop_labels[:, ::-1]
    if config.vertical_flip and rng.random() < config.vertical_flip:
        crop, crop_labels = crop[::-1], crop_labels[::-1]
    if config.color:
        crop = jitter(crop, config.color, rng)
    if blur > 0.1:  # a smaller sigma changes no pixel
        crop = cv2.GaussianBlur(np.ascontiguousarray(crop), (0, 0), blur)
    if config.dropout:
        crop, crop_labels = mask_squares(crop, crop_labels, config.dropout, rng)
    return crop, crop_labels


def center_crop(image: Uint8Array, labels: Uint8Array, crop_size: int) -> tuple[Array, Array]:
    """Scale the short side to `crop_size` and cut out the center square; types as in `random_crop`."""
    height, width = labels.shape
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    rows, columns = slice(top, top + side), slice(left, left + side)
    return _resample(image[rows, columns], labels[rows, columns], crop_size / side, crop_size)


def _choose_span(length: int, side: float, rng: np.random.Generator, middle: int | None) -> slice:
    """Return a random span of at most `side` of `length` pixels, or the span around `middle` if it is set."""
    size = max(1, min(length, round(side)))
    if middle is None:
        start = int(rng.integers(0, length - size + 1))
    else:
        start = max(0, min(middle - size // 2, length - size))
    return slice(start, start + size)


def _resample(image: Uint8Array, labels: Uint8Array, scale: float, crop_size: int) -> tuple[Array, Array]:
    """Scale a region to the crop, with padding at the bottom and the right if it is smaller."""
    height, width = (max(1, min(crop_size, round(length * scale))) for length in labels.shape)
    if max(height, width) >= crop_size - 1:  # rounding must not leave a line of padding
        height, width = (crop_size if length == crop_size - 1 else length for length in (height, width))
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    crop = np.empty((crop_size, crop_size, 3), np.uint8)
    crop_labels = np.full((crop_size, crop_size), IGNORE, np.uint8)
    if (height, width) != (crop_size, crop_size):
        crop[:] = MEAN_COLOR
    crop[:height, :width] = cv2.resize(image, (width, height), interpolation=interpolation)
    crop_labels[:height, :width] = cv2.resize(labels, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
    return crop, crop_labels
