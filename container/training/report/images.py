"""Images as data URIs for the report page."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping

import cv2
import numpy as np
from PIL import Image

from container.arrays import Array, Float32Array, Uint8Array
from container.artifact.classes import ClassEntry
from container.codecs.masks import voc_palette
from container.training.report.content import ExampleImage

_QUALITY = 78  # of JPEG images
_ERROR_COLORS = ((236, 236, 236), (240, 160, 32), (200, 30, 45), (150, 150, 150))  # by value in ExampleImage.errors
_IGNORED_COLOR = (255, 255, 255)  # 255 in a mask


def class_palette(classes: Mapping[int, ClassEntry]) -> Array:
    """Return the colors of all 256 labels, uint8 (256, 3): from the data, or else from Pascal VOC."""
    palette = np.array(voc_palette())
    for label, entry in classes.items():
        if entry.color is not None and 0 <= label < 255:
            palette[label] = entry.color
    palette[255] = _IGNORED_COLOR
    return palette


def draw_example(example: ExampleImage, palette: Uint8Array, side: int) -> tuple[str, str, str, str]:
    """Draw image, annotation, prediction, and errors. Their longer side has at most `side` pixels."""
    maps = (example.labels, example.prediction, example.errors)
    image = _fit(example.image, side, cv2.INTER_AREA)
    labels, prediction, errors = (_fit(each, side, cv2.INTER_NEAREST) for each in maps)
    drawn = _draw_map(labels, palette), _draw_map(prediction, palette)
    return (_draw_photograph(image), *drawn, _draw_map(errors, np.array(_ERROR_COLORS, np.uint8)))


def draw_strip(example: ExampleImage, palette: Uint8Array) -> Array:
    """Draw image, annotation, prediction, and errors next to each other, uint8 RGB (H, 4 W, 3)."""
    errors = np.array(_ERROR_COLORS, np.uint8)[example.errors]
    return np.concatenate([example.image, palette[example.labels], palette[example.prediction], errors], axis=1)


def draw_heat_map(shares: Float32Array) -> str:
    """Draw a matrix of shares (0 to 1) as an image with one pixel per entry, from white to dark blue."""
    ends = np.array([[255, 255, 255], [8, 48, 107]], float)
    colors = ends[0] + np.sqrt(np.nan_to_num(shares))[:, :, None] * (ends[1] - ends[0])
    return _encode(Image.fromarray(colors.round().astype(np.uint8)), "PNG")


def _draw_photograph(image: Uint8Array) -> str:
    return _encode(Image.fromarray(image), "JPEG", quality=_QUALITY)


def _draw_map(labels: Uint8Array, palette: Uint8Array) -> str:
    image = Image.fromarray(labels)
    image.putpalette(palette.tobytes())
    return _encode(image, "PNG")


def _fit(array: Array, side: int, interpolation: int) -> Array:
    scale = side / max(array.shape[:2])
    if scale >= 1:
        return array
    size = [max(1, round(length * scale)) for length in array.shape[1::-1]]
    return np.asarray(cv2.resize(array, size, interpolation=interpolation))


def _encode(image: Image.Image, file_format: str, **options: object) -> str:
    target = io.BytesIO()
    image.save(target, file_format, **options)
    return f"data:image/{file_format.lower()};base64,{base64.b64encode(target.getvalue()).decode()}"
