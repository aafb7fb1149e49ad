"""Probability encoders: NumPy, and protobuf in RecordIO.

Both accept the parameter `top_k=K`: only the K most likely classes of every pixel, the most likely class first.

This module writes the protobuf framing around the memory of the array, because the protobuf library copies every float
twice.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from container.arrays import Array, Float32Array
from container.artifact.classes import ClassEntry
from container.codecs import recordio

Buffer = bytes | memoryview
# when to compress with gzip: never, only if gzip is the only accepted encoding, or whenever it is accepted
Compression = Literal["never", "alone", "asked"]

# aialgs.data.Record in the protobuf wire format: a tag is the field number * 8 + 2 for length-delimited bytes.
_FEATURES = 1 << 3 | 2
_MAP_KEY = 1 << 3 | 2
_MAP_VALUE = 2 << 3 | 2
_FLOAT32_TENSOR = 2 << 3 | 2
_INT32_TENSOR = 7 << 3 | 2
_BYTES = 9 << 3 | 2
_VALUES = 1 << 3 | 2

_DTYPES: dict[str, np.dtype[Any]] = {"float32": np.dtype("<f4"), "float16": np.dtype("<f2"), "uint8": np.dtype("u1")}
_OVERHEAD = 256  # bytes of headers; no response has more
_BAND = 2**14  # values of one class per comparison, so that they fit in the processor cache


class NpyEncoder:
    """Encoder for `application/x-npy`: an array [1, C, H, W] of type `dtype`: float32, float16, or uint8 (value / 255).

    The default is float32. With `top_k`, the array has shape [1, K, H, W] and the fields `class` (uint8) and
    `probability` (of type `dtype`).
    """

    needs: str = "probabilities"

    def __init__(self, options: Mapping[str, str], classes: Mapping[int, ClassEntry]) -> None:
        dtype = options.get("dtype", "float32").lower()
        if dtype not in _DTYPES:
            raise ValueError(f"dtype={dtype} is not valid. Use one of {', '.join(_DTYPES)}")
        self._dtype = _DTYPES[dtype]
        # size reduction by gzip for 21×375×500 on one core: float32 1 MB/s, float16 3 to 24 MB/s, uint8 29 to 120 MB/s
        self.compression: Compression = "asked" if dtype == "uint8" else "alone"
        self._top_k = _read_top_k(options)

    def size(self, num_classes: int, height: int, width: int) -> int:
        """Return the approximate response size in bytes; raises ValueError if top_k is larger than the class count."""
        values = _check_top_k(self._top_k, num_classes) * height * width
        return values * (self._dtype.itemsize + (self._top_k is not None)) + _OVERHEAD

    def memory(self, num_classes: int, height: int, width: int) -> int:
        """Return how many bytes `encode` needs in addition to the probabilities; 0 if it uses their memory."""
        is_float32 = self._dtype == np.float32
        if self._top_k is None and is_float32:
            return 0
        size = self.size(num_classes, height, width)
        rounding = 8 * height * width if self._dtype == np.uint8 else 0  # for one class
        if self._top_k is None:
            return size + rounding
        pairs = self._top_k * height * width  # class and float32, and the probability in the type of the response
        return size + rounding + pairs * (5 + (0 if is_float32 else self._dtype.itemsize))

    def encode(self, probabilities: Float32Array) -> list[Buffer]:
        """Encode probabilities, float32 (C, H, W)."""
        if self._top_k is None:
            answer = _convert(probabilities, self._dtype)
        else:
            classes, likeliest = _choose_likeliest(probabilities, self._top_k)
            answer = np.empty(classes.shape, [("class", "u1"), ("probability", self._dtype)])
            answer["class"] = classes
            answer["probability"] = _convert(likeliest, self._dtype)
        header = io.BytesIO()
        described = np.lib.format.header_data_from_array_1_0(answer[None])  # type: ignore[no-untyped-call]
        np.lib.format.write_array_header_1_0(header, {**described, "fortran_order": False})  # type: ignore[no-untyped-call]
        return [header.getvalue(), np.ascontiguousarray(answer).data.cast("B")]


class RecordIOEncoder:
    """Encoder for `application/x-recordio-protobuf`: one RecordIO record that contains an `aialgs.data.Record`.

    The features are `target` (the values) and `shape` ([1, C, H, W]). With `top_k`, the shape is [1, K, H, W], and the
    feature `classes` contains the class of each value, one byte per value, as `bytes_value`.
    """

    needs: str = "probabilities"
    compression: Compression = "alone"

    def __init__(self, options: Mapping[str, str], classes: Mapping[int, ClassEntry]) -> None:
        self._top_k = _read_top_k(options)

    def size(self, num_classes: int, height: int, width: int) -> int:
        """Return the approximate response size in bytes; raises ValueError as NpyEncoder, or RecordTooLongError."""
        pairs = _check_top_k(self._top_k, num_classes) * height * width
        size = pairs * (4 + (self._top_k is not None)) + _OVERHEAD
        if size > recordio.MAX_LENGTH:
            raise recordio.RecordTooLongError(f"{size} bytes of probabilities do not fit in a RecordIO record")
        return size

    def memory(self, num_classes: int, height: int, width: int) -> int:
        """Return how many bytes `encode` needs in addition to the probabilities; 0 if it uses their memory."""
        if self._top_k is None:
            return 0
        return self.size(num_classes, height, width) + self._top_k * height * width  # a second copy of the classes

    def encode(self, probabilities: Float32Array) -> list[Buffer]:
        """Encode probabilities, float32 (C, H, W)."""
        chosen: list[Buffer] = []
        if self._top_k is not None:
            classes, probabilities = _choose_likeliest(probabilities, self._top_k)
            chosen = _feature("classes", _BYTES, classes.data.cast("B"))
        values = np.ascontiguousarray(probabilities, "<f4").data.cast("B")
        shape = memoryview(b"".join(_varint(size) for size in (1, *probabilities.shape)))
        opening, target = _feature("target", _FLOAT32_TENSOR, values)
        rest = b"".join([*_feature("shape", _INT32_TENSOR, shape), *chosen])
        # the values are not copied; they start and end at the word boundaries where RecordIO looks for its magic word
        begin = -len(opening) % 4
        end = max(begin, begin + (len(values) - begin) // 4 * 4)
        first, last = bytes(opening) + target[:begin], bytes(target[end:]) + rest
        return recordio.frame(first, target[begin:end], last)


def _read_top_k(options: Mapping[str, str]) -> int | None:
    text = options.get("top_k")
    if text is None:
        return None
    if not text.isdecimal() or not 1 <= len(text) <= 3 or int(text) == 0:
        raise ValueError(f"top_k={text} is not valid. Use an integer above 0")
    return int(text)


def _check_top_k(top_k: int | None, num_classes: int) -> int:
    if top_k is not None and top_k > num_classes:
        raise ValueError(f"top_k={top_k} is larger than the number of classes of this model ({num_classes})")
    return top_k or num_classes


def _choose_likeliest(probabilities: Float32Array, count: int) -> tuple[Array, Array]:
    """Return the K most likely classes, uint8 (K, H, W), and their probabilities, float32, in descending order.

    Classes with equal probabilities are in ascending order.
    """
    if count == 1:
        return _choose_the_likeliest(probabilities)
    classes = np.empty((count, *probabilities.shape[1:]), np.uint8)
    likeliest = np.empty(classes.shape, np.float32)
    for row in range(probabilities.shape[1]):
        order = np.argsort(-probabilities[:, row], axis=0, kind="stable")[:count]
        classes[:, row] = order
        likeliest[:, row] = np.take_along_axis(probabilities[:, row], order, axis=0)
    return classes, likeliest


def _choose_the_likeliest(probabilities: Float32Array) -> tuple[Array, Array]:
    """Return the most likely class and its probability. For 21 classes, this is 15 times as fast as sorting."""
    classes = np.zeros((1, *probabilities.shape[1:]), np.uint8)
    likeliest = probabilities[:1].copy()
    step = max(1, _BAND // probabilities.shape[2])
    for start in range(0, probabilities.shape[1], step):
        rows = slice(start, start + step)
        for label, plane in enumerate(probabilities[1:, rows], 1):
            np.copyto(classes[0, rows], np.uint8(label), where=plane > likeliest[0, rows])
            np.maximum(likeliest[0, rows], plane, out=likeliest[0, rows])
    return classes, likeliest


def _convert(probabilities: Float32Array, dtype: np.dtype[Any]) -> Array:
    """Convert probabilities to `dtype`, one class at a time, so that only the result needs additional memory."""
    if dtype != np.uint8:
        return probabilities.astype(dtype, copy=False)
    answer = np.empty(probabilities.shape, dtype)
    for label, plane in enumerate(probabilities):
        answer[label] = np.rint(plane * 255)
    return answer


def _feature(name: str, tensor: int, values: memoryview) -> list[Buffer]:
    """Return the buffers of one entry of the map `features`. Its value is a tensor of packed `values`."""
    key = _opening(_MAP_KEY, len(name)) + name.encode()
    in_tensor = _opening(_VALUES, values.nbytes)
    in_value = _opening(tensor, len(in_tensor) + values.nbytes) + in_tensor
    in_entry = key + _opening(_MAP_VALUE, len(in_value) + values.nbytes) + in_value
    return [_opening(_FEATURES, len(in_entry) + values.nbytes) + in_entry, values]


def _opening(tag: int, length: int) -> bytes:
    return bytes([tag]) + _varint(length)


def _varint(number: int) -> bytes:
    """Encode an integer as a protobuf varint: 7 bits per byte, lowest bits first."""
    encoded = bytearray()
    while number > 127:
        encoded.append(number & 127 | 128)
        number >>= 7
    return bytes([*encoded, number])
