"""Answers: a mask or class probabilities to the bytes of each media type that can be asked for."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from PIL import Image

from container.codecs import recordio

# aialgs.data.Record in protobuf's wire format: a tag is the field's number * 8 + 2 for "bytes of this length".
_FEATURES = 1 << 3 | 2
_MAP_KEY = 1 << 3 | 2
_MAP_VALUE = 2 << 3 | 2
_FLOAT32_TENSOR = 2 << 3 | 2
_INT32_TENSOR = 7 << 3 | 2
_TENSOR_VALUES = 1 << 3 | 2


@dataclasses.dataclass(frozen=True)
class Encoder:
    """One media type: what it is made from, and how."""

    needs: Literal["mask", "probabilities"]
    encode: Callable[[np.ndarray], bytes]


def encode_png(mask: np.ndarray) -> bytes:
    """Encode a mask, uint8 (H, W), as greyscale PNG with the class id as the pixel's value."""
    target = io.BytesIO()
    Image.fromarray(mask).save(target, "PNG")
    return target.getvalue()


def encode_json(mask: np.ndarray) -> bytes:
    """Encode a mask, uint8 (H, W), as JSON: `shape` [H, W] and `classes`, an object for every class present.

    Its `share` of the pixels lies between 0 and 1, its bounding `box` is [x, y, width, height], its `mask` is COCO's
    compressed run-length encoding.
    """
    height, width = mask.shape
    values, starts, ends = _column_runs(mask)
    classes = []
    for present in np.unique(values):
        mine = values == present
        classes.append(_describe_class(int(present), starts[mine], ends[mine], height, width))
    return json.dumps({"shape": [height, width], "classes": classes}).encode()


def encode_npy(probabilities: np.ndarray) -> bytes:
    """Encode probabilities, float32 (C, H, W), as NumPy's own format, shape [1, C, H, W]."""
    target = io.BytesIO()
    np.lib.format.write_array(target, probabilities[None], version=(1, 0), allow_pickle=False)
    return target.getvalue()


def encode_recordio(probabilities: np.ndarray) -> bytes:
    """Encode probabilities, float32 (C, H, W), as one RecordIO record that holds an `aialgs.data.Record`.

    Its features are `target`, the values, and `shape`, [1, C, H, W]. Raises recordio.RecordTooLong.
    """
    values = np.ascontiguousarray(probabilities, "<f4").data.cast("B")
    shape = b"".join(_varint(size) for size in (1, *probabilities.shape))
    record = [*_feature("target", _FLOAT32_TENSOR, values), *_feature("shape", _INT32_TENSOR, memoryview(shape))]
    if sum(map(len, record)) > recordio.MAX_LENGTH:
        raise recordio.RecordTooLong(f"{values.nbytes} bytes of probabilities do not fit into a RecordIO record")
    return b"".join(recordio.frame(b"".join(record)))


def _feature(name: str, tensor: int, values: memoryview) -> list[bytes | memoryview]:
    """Return the buffers of one entry of the map `features`, whose value is a tensor of packed `values`."""
    key = _opening(_MAP_KEY, len(name)) + name.encode()
    in_tensor = _opening(_TENSOR_VALUES, values.nbytes)
    in_value = _opening(tensor, len(in_tensor) + values.nbytes) + in_tensor
    in_entry = key + _opening(_MAP_VALUE, len(in_value) + values.nbytes) + in_value
    return [_opening(_FEATURES, len(in_entry) + values.nbytes) + in_entry, values]


def _opening(tag: int, length: int) -> bytes:
    return bytes([tag]) + _varint(length)


def _varint(number: int) -> bytes:
    """Encode a whole number as protobuf does: 7 bits a byte, the lowest first."""
    encoded = bytearray()
    while number > 127:
        encoded.append(number & 127 | 128)
        number >>= 7
    return bytes([*encoded, number])


def _column_runs(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cut the pixels, read column by column, into runs of one class: their classes, first pixels and ends."""
    pixels = mask.ravel(order="F")
    borders = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    starts = np.concatenate([[0], borders])
    return pixels[starts], starts, np.concatenate([borders, [len(pixels)]])


def _describe_class(class_id: int, starts: np.ndarray, ends: np.ndarray, height: int, width: int) -> dict[str, Any]:
    """Describe one class by its runs."""
    left, right = int(starts[0]) // height, int(ends[-1] - 1) // height
    top, bottom = starts % height, (ends - 1) % height
    if (starts // height != (ends - 1) // height).any():  # a run that goes on in the next column spans the edge
        y0, y1 = 0, height - 1
    else:
        y0, y1 = int(top.min()), int(bottom.max())
    counts = np.diff(np.column_stack([starts, ends]).ravel(), prepend=0, append=height * width)
    return {
        "id": class_id,
        "share": float((ends - starts).sum() / (height * width)),
        "box": [left, y0, right - left + 1, y1 - y0 + 1],
        "mask": {"size": [height, width], "counts": _compress(counts if counts[-1] else counts[:-1])},
    }


def _compress(counts: np.ndarray) -> str:
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
    return text.astype(np.uint8).tobytes().decode("ascii")


ENCODERS = {
    "image/png": Encoder("mask", encode_png),
    "application/x-protobuf": Encoder("probabilities", encode_recordio),
    "application/x-recordio-protobuf": Encoder("probabilities", encode_recordio),
    "application/x-npy": Encoder("probabilities", encode_npy),
    "application/json": Encoder("mask", encode_json),
}
