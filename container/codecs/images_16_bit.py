"""16-bit samples of PNG images, and their scaling to 8 bits."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np

from container.arrays import Array, Uint8Array
from container.codecs import png
from container.codecs.header import corrupt_error
from container.image_range import Range

_BAND = 2**20  # samples per scaling operation


def decode_samples(data: bytes) -> Array:
    """Decode a valid 16-bit PNG to uint16 gray (H, W) or RGB (H, W, 3); alpha is dropped. Raises DecodeError."""
    samples = cv2.imdecode(np.frombuffer(png.repack(data), np.uint8), cv2.IMREAD_UNCHANGED)
    if samples is None:
        raise corrupt_error("PNG", "its 16-bit samples cannot be decoded")
    if samples.ndim == 3:
        samples = samples[:, :, 2::-1]
    return samples


def scale_table(image_range: Range | None) -> Uint8Array:
    """Return the 8-bit value of each 16-bit sample, (65536,): the high byte, or with a range, scaled and rounded."""
    values = np.arange(2**16)
    if image_range is None:
        return (values >> 8).astype(np.uint8)
    low, high = image_range
    width = high - low
    return ((2 * 255 * (values.clip(low, high) - low) + width) // (2 * width)).astype(np.uint8)


def count_samples(samples: Array) -> Array:
    """Return the number of samples with each value, int64 (65536,)."""
    counts = np.zeros(2**16, np.int64)
    for band in _bands(samples):
        counts += np.bincount(samples[band].ravel(), minlength=2**16)
    return counts


def to_rgb(samples: Array, image_range: Range | None) -> Uint8Array:
    """Scale samples (H, W) or (H, W, 3) to uint8 RGB (H, W, 3); samples outside the range are clipped."""
    table = scale_table(image_range)
    image = np.empty((*samples.shape[:2], 3), np.uint8)
    for band in _bands(samples):
        scaled = table[samples[band]]
        image[band] = scaled if scaled.ndim == 3 else scaled[:, :, None]
    return image


def _bands(samples: Array) -> Iterator[slice]:
    """Split samples into bands of rows, because NumPy needs 8 bytes per sample that is used as an index."""
    rows = max(1, _BAND // (samples.size // len(samples)))
    return (slice(start, start + rows) for start in range(0, len(samples), rows))
