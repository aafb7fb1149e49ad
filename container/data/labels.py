"""What an annotation's pixel values mean: label maps and the ignore label."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from container.errors import ClientError

IGNORE = 255


class LabelMap:
    """Maps pixel values to training labels.

    `{"scale": s}`: label = floor(pixel / s). `{"map": {"<label>": pixel}}`: the key is the training label,
    the value is the pixel; pixels the map does not name are ignored. Pixel 255 is ignored either way.
    Values may be numbers or strings.
    https://docs.aws.amazon.com/sagemaker/latest/dg/semantic-segmentation.html
    """

    def __init__(self, content: Mapping[str, object] | None = None, source: str = "the label map") -> None:
        self.content = dict(content) if content is not None else {"scale": 1}
        self.scale: float | None = None
        self.labels: dict[int, int] = {}
        try:
            if set(self.content) == {"scale"}:
                self.scale = float(str(self.content["scale"]))
                if not 0 < self.scale < float("inf"):
                    raise ValueError("scale must be a number above 0")
            elif set(self.content) == {"map"} and isinstance(self.content["map"], Mapping):
                self._read_map(self.content["map"])
            else:
                raise ValueError('it must be an object with one key, "scale" or "map"')
        except (TypeError, ValueError) as error:
            raise ClientError(
                f'{source} is not valid: {error}; write {{"scale": 10}} or {{"map": {{"<label>": <pixel value>}}}}'
            ) from error

    def _read_map(self, entries: Mapping[str, object]) -> None:
        for label, pixel in entries.items():
            value = int(str(pixel))
            if value in self.labels:
                raise ValueError(f"pixel {value} is mapped to two labels, {self.labels[value]} and {label}")
            self.labels[value] = int(label)
        if not self.labels or min(self.labels) < 0 or not all(0 <= label <= 255 for label in self.labels.values()):
            raise ValueError("labels must lie between 0 and 255, pixel values must not be negative")

    @classmethod
    def read(cls, path: Path) -> LabelMap:
        """Read a label map's JSON file; raises ClientError that names the file."""
        try:
            content = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise ClientError(f"{path} is not readable JSON: {error}") from error
        if not isinstance(content, dict):
            raise ClientError(f"{path} must hold a JSON object")
        return cls(content, str(path))

    def apply(self, pixels: np.ndarray, num_classes: int) -> tuple[np.ndarray, int]:
        """Map pixel values (H, W) to uint8 labels (H, W), 255 = ignore.

        Also returns how many pixels were ignored because the map does not name their value. Raises
        ClientError with the first pixel value whose label is neither a class nor 255.
        """
        values, places = (np.arange(256), pixels) if pixels.dtype == np.uint8 else _unique(pixels)
        table, unnamed = self._table(values)
        wrong = (table >= num_classes) & (table != IGNORE)
        if wrong.any() and (present := np.bincount(places.ravel(), minlength=len(values)) * wrong).any():
            first = int(np.flatnonzero(present)[0])
            raise ClientError(
                f"pixel value {values[first]} becomes label {table[first]}, but num_classes is {num_classes}: "
                "raise num_classes, mark such pixels 255 (ignore), or give a label map"
            )
        ignored = int(np.bincount(places.ravel(), minlength=len(values))[unnamed].sum()) if unnamed.any() else 0
        return table.astype(np.uint8)[places], ignored

    def _table(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Labels of pixel `values`, and which of them the map does not name."""
        if self.scale is not None:
            labels = np.floor(values / self.scale).astype(np.int64)
            unnamed = np.zeros(len(values), bool)
        else:
            labels = np.array([self.labels.get(int(value), IGNORE) for value in values], np.int64)
            unnamed = np.array([int(value) not in self.labels and value != IGNORE for value in values])
        labels[values == IGNORE] = IGNORE
        return labels, unnamed


def _unique(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    values, places = np.unique(pixels, return_inverse=True)
    return values, places.reshape(pixels.shape)
