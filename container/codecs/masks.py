"""Mask encoders: PNG with class IDs or colors, and JSON."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco

from container.arrays import Array, Uint8Array
from container.artifact.classes import ClassEntry
from container.codecs.probabilities import Compression


class PngEncoder:
    """Encoder for `image/png`: a grayscale image with the class ID as the pixel value.

    With `palette=voc` (colors of Pascal VOC) or `palette=data` (colors of classes.json), the class IDs are palette
    indices (mode P).
    """

    needs: str = "mask"
    compression: Compression = "never"

    def __init__(self, options: Mapping[str, str], classes: Mapping[int, ClassEntry]) -> None:
        palette = options.get("palette", "").lower()
        if palette not in ("", "voc", "data"):
            raise ValueError(f"palette={palette} is not valid. Use voc or data")
        self._palette = voc_palette() if palette else None
        if palette == "data":
            colors = {label: entry.color for label, entry in classes.items() if entry.color}
            if not colors:
                raise ValueError("palette=data needs colors in the classes.json of the model. Use palette=voc")
            self._palette = np.zeros((256, 3), np.uint8)
            for label, color in colors.items():
                self._palette[label] = color

    def size(self, num_classes: int, height: int, width: int) -> int:
        """Return 0, because the size depends on the content of the mask."""
        return 0

    def memory(self, num_classes: int, height: int, width: int) -> int:
        """Return 0, because encoding needs less memory than decoding the image."""
        return 0

    def encode(self, mask: Uint8Array) -> list[bytes | memoryview]:
        """Encode a mask, uint8 (H, W)."""
        image = Image.fromarray(mask)
        if self._palette is not None:
            image.putpalette(self._palette.tobytes())
        target = io.BytesIO()
        image.save(target, "PNG")
        return [target.getvalue()]


class JsonEncoder:
    """Encoder for `application/json`: `shape` [H, W], and `classes` with an object for each class in the mask.

    The object contains `id`, `name` if classes.json has one, `share` of the pixels (0 to 1), the bounding `box` [x, y,
    width, height], and `mask` in the compressed run-length encoding of COCO.
    """

    needs: str = "mask"
    compression: Compression = "asked"

    def __init__(self, options: Mapping[str, str], classes: Mapping[int, ClassEntry]) -> None:
        self._names = {label: entry.name for label, entry in classes.items() if entry.name}

    def size(self, num_classes: int, height: int, width: int) -> int:
        """Return 0, because the size depends on the content of the mask."""
        return 0

    def memory(self, num_classes: int, height: int, width: int) -> int:
        """Return 0, because encoding needs less memory than decoding the image."""
        return 0

    def encode(self, mask: Uint8Array) -> list[bytes | memoryview]:
        """Encode a mask, uint8 (H, W)."""
        columns, classes = np.asfortranarray(mask), []
        for label in np.flatnonzero(Image.fromarray(mask).histogram()).tolist():
            known = {"name": self._names[label]} if label in self._names else {}
            classes.append({"id": label, **known, **_describe_class((columns == label).view(np.uint8))})
        return [json.dumps({"shape": list(mask.shape), "classes": classes}).encode()]


def voc_palette() -> Array:
    """Return the Pascal VOC colors, uint8 (256, 3): the bits of the class ID, distributed to red, green, and blue."""
    bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)[:, ::-1]  # bit 0 first
    deal = [[0, 3, 6], [1, 4, 7], [2, 5]]  # bits of the class ID that become the highest bits of each channel
    channels = [sum(bits[:, bit] << (7 - place) for place, bit in enumerate(mine)) for mine in deal]
    return np.stack(channels, axis=1).astype(np.uint8)


def _describe_class(is_class: Uint8Array) -> dict[str, Any]:
    """Describe a class from its mask of 1 and 0, uint8 (H, W) in Fortran order, which the COCO encoding uses."""
    runs = coco.encode(is_class)
    return {
        "share": float(coco.area(runs) / is_class.size),
        "box": [int(side) for side in coco.toBbox(runs)],
        "mask": {"size": list(is_class.shape), "counts": runs["counts"].decode("ascii")},
    }
