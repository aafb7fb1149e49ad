"""Masks to bytes: PNG for programs and for eyes, JSON for questions."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from container.arrays import Array, Uint8Array
from container.classes import ClassEntry
from container.codecs.probabilities import Compression


class PngEncoder:
    """`image/png`: greyscale, the class id as the pixel's value.

    With `palette=voc` (Pascal VOC's colours) or `palette=data` (those of classes.json) the same ids, in mode P.
    """

    needs: str = "mask"
    compression: Compression = "never"

    def __init__(self, options: Mapping[str, str], classes: Mapping[int, ClassEntry]) -> None:
        palette = options.get("palette", "").lower()
        if palette not in ("", "voc", "data"):
            raise ValueError(f"palette={palette} must be voc or data")
        self._palette = voc_palette() if palette else None
        if palette == "data":
            colors = {label: entry.color for label, entry in classes.items() if entry.color}
            if not colors:
                raise ValueError("palette=data needs colours in the model's classes.json; try palette=voc")
            self._palette = np.zeros((256, 3), np.uint8)
            for label, color in colors.items():
                self._palette[label] = color

    def size(self, num_classes: int, height: int, width: int) -> int:
        """Return 0: how well it compresses, only the mask can say."""
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
    """`application/json`: `shape` [H, W] and `classes`, an object for every class present.

    Its `id` and, where classes.json has one, `name`; its `share` of the pixels lies between 0 and 1, its bounding `box`
    is [x, y, width, height], its `mask` is COCO's compressed run-length encoding.
    """

    needs: str = "mask"
    compression: Compression = "asked"

    def __init__(self, options: Mapping[str, str], classes: Mapping[int, ClassEntry]) -> None:
        self._names = {label: entry.name for label, entry in classes.items() if entry.name}

    def size(self, num_classes: int, height: int, width: int) -> int:
        """Return 0: how well it compresses, only the mask can say."""
        return 0

    def encode(self, mask: Uint8Array) -> list[bytes | memoryview]:
        """Encode a mask, uint8 (H, W)."""
        height, width = mask.shape
        values, starts, ends = _column_runs(mask)
        classes = []
        for present in np.unique(values):
            label, mine = int(present), values == present
            known = {"name": self._names[label]} if label in self._names else {}
            classes.append({"id": label, **known, **_describe_class(starts[mine], ends[mine], height, width)})
        return [json.dumps({"shape": [height, width], "classes": classes}).encode()]


def voc_palette() -> Array:
    """Return Pascal VOC's colours, uint8 (256, 3): the bits of the class id, dealt to red, green and blue in turn."""
    bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)[:, ::-1]  # bit 0 first
    deal = [[0, 3, 6], [1, 4, 7], [2, 5]]  # which of them each channel gets, for its highest bits
    channels = [sum(bits[:, bit] << (7 - place) for place, bit in enumerate(mine)) for mine in deal]
    return np.stack(channels, axis=1).astype(np.uint8)


def _column_runs(mask: Uint8Array) -> tuple[Array, Array, Array]:
    """Cut the pixels, read column by column, into runs of one class: their classes, first pixels and ends."""
    pixels = mask.ravel(order="F")
    borders = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    starts = np.concatenate([[0], borders])
    return pixels[starts], starts, np.concatenate([borders, [len(pixels)]])


def _describe_class(starts: Array, ends: Array, height: int, width: int) -> dict[str, Any]:
    """Describe one class by its runs."""
    left, right = int(starts[0]) // height, int(ends[-1] - 1) // height
    top, bottom = starts % height, (ends - 1) % height
    if (starts // height != (ends - 1) // height).any():  # a run that goes on in the next column spans the edge
        y0, y1 = 0, height - 1
    else:
        y0, y1 = int(top.min()), int(bottom.max())
    counts = np.diff(np.column_stack([starts, ends]).ravel(), prepend=0, append=height * width)
    return {
        "share": float((ends - starts).sum() / (height * width)),
        "box": [left, y0, right - left + 1, y1 - y0 + 1],
        "mask": {"size": [height, width], "counts": _compress(counts if counts[-1] else counts[:-1])},
    }


def _compress(counts: Array) -> str:
    """Write run lengths as COCO does: from the fourth on as difference to the one before the last, 5 bits a character.

    https://github.com/cocodataset/cocoapi/blob/master/common/maskApi.c (rleToString)
    """
    numbers = counts.astype(np.int64)
    numbers[3:] -= counts[1:-2]
    open_, characters, written = np.ones(len(numbers), bool), [], []
    while open_.any():
        bits = numbers & 31
        numbers = numbers >> 5
        written.append(open_)
        open_ = open_ & (numbers != np.where(bits & 16, -1, 0))  # the last character's top bit is the sign
        characters.append((bits | open_ << 5) + 48)
    text = np.stack(characters, 1)[np.stack(written, 1)]
    return str(text.astype(np.uint8).tobytes(), "ascii")
