"""Visualization of masks: in colors, and as an overlay on the image."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

_ROW = 18
_LEAST_WIDTH = 480


def palette() -> list[int]:
    """Return the 256 colors of Pascal VOC as a list for Pillow: R, G, B, R, G, B, …"""
    return [
        sum(((label >> (3 * bit + channel)) & 1) << (7 - bit) for bit in range(3))
        for label in range(256)
        for channel in range(3)
    ]


def read_class_names(path: Path) -> list[str]:
    """Return the class names by ID from classes.json or a list of names; unknown names are empty."""
    if not path.is_file():
        return []
    entries = json.loads(path.read_bytes())
    named = dict(enumerate(entries))
    if entries and isinstance(entries[0], dict):
        named = {int(entry["id"]): entry.get("name", "") for entry in entries}
    return [named.get(label, "") for label in range(max(named, default=-1) + 1)]


def color_mask(mask: Image.Image) -> Image.Image:
    """Return the mask (mode L or P) with a palette of visible colors. The class IDs do not change."""
    colored = Image.fromarray(np.asarray(mask))
    colored.putpalette(palette())
    return colored


def draw_overlay(photo: Image.Image, mask: Image.Image, classes: Sequence[str] = ()) -> Image.Image:
    """Blend the mask, except for class 0, over an image of the same size, and add a legend of its classes.

    A small image is enlarged. A class without a name is shown as its ID.
    """
    scale = max(1, -(-_LEAST_WIDTH // photo.width))
    size = (photo.width * scale, photo.height * scale)
    ids = np.asarray(mask.resize(size, Image.Resampling.NEAREST))
    colors = np.array(palette(), np.uint8).reshape(256, 3)[ids]
    if photo.mode.startswith("I"):  # 16-bit gray, which Pillow would convert to white
        samples = np.asarray(photo).astype(np.float64)
        photo = Image.fromarray((255 * (samples - samples.min()) / max(1, np.ptp(samples))).astype(np.uint8))
    pixels = np.asarray(photo.convert("RGB").resize(size, Image.Resampling.BICUBIC))
    blended = np.where((ids > 0)[:, :, None], pixels // 2 + colors // 2, pixels)
    shown = [int(label) for label in np.unique(ids)]
    canvas = Image.new("RGB", (size[0], size[1] + _ROW * len(shown)), "white")
    canvas.paste(Image.fromarray(blended))
    draw = ImageDraw.Draw(canvas)
    for row, label in enumerate(shown):
        top = size[1] + _ROW * row
        draw.rectangle((4, top + 3, 18, top + _ROW - 3), fill=tuple(palette()[3 * label : 3 * label + 3]))
        name = classes[label] if label < len(classes) else ""
        share = 100 * float((ids == label).mean())
        draw.text((26, top + 3), f"{label} {name} {share:.1f}%".replace("  ", " "), fill="black")
    return canvas
