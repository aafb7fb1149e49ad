"""Label maps: pixel values and colors to class IDs, and the ignore value."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from container.arrays import Array
from container.codecs.images import Annotation
from container.data.labels.color_maps import (
    ALPHA,
    TRANSPARENT,
    Color,
    ColorMap,
    color_codes,
    color_key,
    count_colors,
    split_code,
)
from container.data.labels.decoding import (
    IGNORE,
    DecodedLabels,
    Meaning,
    UnmappedColorsError,
    read_colors,
    validate_labels,
)
from container.data.labels.depths import choose_interpretation, shades_of
from container.errors import ClientError, shorten_list

INVERTED = "The keys must be class IDs, and the values must be pixel values. The inverted map is {}"

_MAX_BYTES = 2**20  # a map with all 16-bit pixel values has half of this
_FORM = (
    'Write {"scale": 10}, {"map": {"<label>": <pixel value>}} or {"colors": {"#804080": <label>}}, '
    'optionally with {"names": {"<label>": "road"}}'
)


class LabelMap:
    """Mapping from pixel values or colors of annotations to labels.

    - `{"scale": s}`: label = floor(pixel value / s).
    - `{"map": {"<label>": value}}`: each key is a label, and each value is a pixel value or a list of pixel values.
    - `{"colors": {"#rrggbb": label}}`: labels by color, for annotations in RGB, RGBA, gray, or with a palette. The key
      `transparent` is for pixels of RGBA and LA whose alpha is 0.

    Pixels whose value is not in the map are ignored. The value 255 is ignored unless the map contains it, or the scale
    turns it into a class ID. All three can also contain the `names` of the labels. Numbers can be strings.
    https://docs.aws.amazon.com/sagemaker/latest/dg/semantic-segmentation.html
    """

    def __init__(self, content: Mapping[str, object] | None = None, source: str = "the label map") -> None:
        self.content = dict(content) if content is not None else {"scale": 1}
        self.source = source
        self.scale: float | None = None
        self.labels: dict[int, int] = {}  # by pixel value
        self.colors: dict[int, int] | None = None  # labels by 0xrrggbb
        self.names: dict[int, str] = {}
        self._tables: dict[tuple[int, int], Meaning] = {}  # of all shades of gray, by num_classes and bits
        try:
            self._read(dict(self.content))
        except (TypeError, ValueError, AttributeError) as error:
            raise ClientError(f"{source} is not valid: {error}. {_FORM}") from error

    @classmethod
    def read(cls, path: Path) -> LabelMap:
        """Read the JSON file of a label map, in any Unicode encoding; raises ClientError that contains the path."""
        try:
            with path.open("rb") as file:
                data = file.read(_MAX_BYTES + 1)
            if len(data) > _MAX_BYTES:
                raise ClientError(
                    f"The label map {path} is larger than {_MAX_BYTES // 2**20} MB. Make sure that the file is a label "
                    "map, and remove the entries that the annotations do not need."
                )
            content = json.loads(data, object_pairs_hook=_reject_duplicate_keys)
        except (OSError, ValueError, RecursionError) as error:
            raise ClientError(f"{path} is not readable JSON: {error}") from error
        if not isinstance(content, dict):
            raise ClientError(f"{path} must contain a JSON object. {_FORM}")
        return cls(content, str(path))

    def check(self, num_classes: int) -> None:
        """Raise ClientError with the file and a fix if a label is neither a valid class ID nor 255."""
        remedy = "Increase num_classes, or use the label 255 to ignore such pixels"
        if inverted := self.inverted(num_classes):
            remedy = INVERTED.format(json.dumps(inverted))
        self._check_labels(
            (self.labels if self.colors is None else self.colors).values(), num_classes, "labels", remedy
        )
        self._check_labels(self.names, num_classes, "names of labels", "Increase num_classes, or remove these names")

    def _check_labels(self, labels: Iterable[int], num_classes: int, what: str, remedy: str) -> None:
        wrong = sorted({label for label in labels if label >= num_classes and label != IGNORE})
        if wrong:
            listed = shorten_list(list(map(str, wrong)), 10)
            raise ClientError(
                f"{self.source} contains {what} that are not valid class IDs (num_classes is {num_classes}): {listed}. "
                f"{remedy}"
            )

    def inverted(self, num_classes: int) -> dict[str, dict[str, object]] | None:
        """Return the map with labels and pixel values exchanged, or None if the result is not a valid map."""
        if not self.labels or len(set(self.labels.values())) < len(self.labels):
            return None
        if not all(value < num_classes or value == IGNORE for value in self.labels):
            return None
        turned: dict[str, dict[str, object]] = {
            "map": {str(value): self.labels[value] for value in sorted(self.labels)}
        }
        return turned | ({"names": {str(label): name for label, name in self.names.items()}} if self.names else {})

    @property
    def maps_transparent(self) -> bool:
        """Whether the map contains transparent pixels."""
        return self.colors is not None and TRANSPARENT in self.colors

    @property
    def class_colors(self) -> dict[int, Color]:
        """Color of each label: the first color that is mapped to it."""
        found: dict[int, Color] = {}
        for code, label in (self.colors or {}).items():
            if code != TRANSPARENT:
                found.setdefault(label, split_code(code))
        return found

    def interpret(self, annotation: Annotation, num_classes: int, color_map: ColorMap | None = None) -> DecodedLabels:
        """Return the labels of a decoded annotation; `color_map` contains the class colors of Ground Truth.

        Raises UnmappedColorsError if the annotation is in colors, and neither this map nor `color_map` has colors.
        """
        if self.colors is not None:
            return self._by_color(annotation, num_classes)
        if annotation.colors is not None:
            codes = color_codes(annotation.colors)
            if color_map is None:
                raise UnmappedColorsError(_count_unmapped(codes, annotation.alpha), num_classes)
            known, ids = color_map.as_arrays()
            labels, unnamed, wrong = self._labels_of(ids, num_classes)
            return read_colors(codes, known, labels, unnamed, wrong)
        pixels = annotation.pixels
        assert pixels is not None  # an annotation has either pixels or colors
        if annotation.palette is None and annotation.bits != 8:
            return self._by_gray(annotation, num_classes)
        values = np.arange(256)
        if color_map is not None and annotation.palette is not None:
            ids = color_map.repair(annotation.palette)
            return DecodedLabels(pixels, values, *self._labels_of(ids, num_classes), repaired=ids != values)
        bits = None if annotation.palette is not None else 8
        return DecodedLabels(pixels, values, *self._table(num_classes, values, 8), bits=bits)

    def _by_gray(self, annotation: Annotation, num_classes: int) -> DecodedLabels:
        """Decode gray of 1, 2, 4, or 16 bits: by its numbers, or by its shades if only the shades fit this map."""
        bits, places = annotation.bits, annotation.pixels
        assert places is not None
        if bits == 16:
            values, found = np.unique(places, return_inverse=True)
            places = found.reshape(places.shape)
            meaning = self._labels_of(values, num_classes)
            shades = shades_of(values, bits)
        else:
            values, shades = np.arange(256), np.arange(256)
            shades[: 2**bits] = shades_of(values[: 2**bits], bits)
            meaning = self._table(num_classes, values, 8)
        by_numbers = DecodedLabels(places, values, *meaning, bits=bits)
        if shades is None:
            return choose_interpretation(by_numbers, None, self.scale)
        meaning = self._labels_of(shades, num_classes) if bits == 16 else self._table(num_classes, shades, bits)
        by_shades = DecodedLabels(places, shades, *meaning, bits=bits, numbers=values)
        return choose_interpretation(by_numbers, by_shades, self.scale)

    def _table(self, num_classes: int, shades: Array, bits: int) -> Meaning:
        """Return the labels of all shades of gray with this bit depth."""
        if (num_classes, bits) not in self._tables:
            self._tables[num_classes, bits] = self._labels_of(shades, num_classes)
        return self._tables[num_classes, bits]

    def _read(self, content: dict[str, Any]) -> None:
        self.names = _parse_names(content.pop("names", {}))
        if set(content) == {"scale"}:
            self.scale = float(str(content["scale"]))
            if not 0 < self.scale < float("inf"):
                raise ValueError("scale must be a number above 0")
        elif set(content) == {"map"} and isinstance(content["map"], Mapping):
            self._parse_map(content["map"])
        elif set(content) == {"colors"} and isinstance(content["colors"], Mapping):
            self._parse_colors(content["colors"])
        elif content or not self.names:
            raise ValueError('it must be an object with one of the keys "scale", "map", and "colors"')
        else:
            self.scale = 1.0

    def _parse_map(self, entries: Mapping[str, Any]) -> None:
        for key, entry in entries.items():
            label = _parse_label(key)
            for pixel in entry if isinstance(entry, list) else [entry]:
                value = _parse_integer(pixel)
                if value < 0:
                    raise ValueError(f"pixel value {value} is negative")
                if self.labels.setdefault(value, label) != label:
                    raise ValueError(
                        f"pixel value {value} is mapped to two labels, {self.labels[value]} and {label} (the keys must "
                        "be labels, and the values must be pixel values)"
                    )
        if not self.labels:
            raise ValueError("the map is empty")

    def _parse_colors(self, entries: Mapping[str, Any]) -> None:
        self.colors = {}
        for text, entry in entries.items():
            code, label = color_key(text), _parse_label(entry)
            if self.colors.setdefault(code, label) != label:
                raise ValueError(f"color {text} is mapped to two labels, {self.colors[code]} and {label}")
        if not self.colors:
            raise ValueError("it contains no color")

    def _by_color(self, annotation: Annotation, num_classes: int) -> DecodedLabels:
        assert self.colors is not None
        known = np.array(list(self.colors), np.int64)
        labels = np.array(list(self.colors.values()), np.int64)
        meaning = validate_labels(labels, np.zeros(len(labels), bool), num_classes)
        if annotation.colors is not None:
            codes = color_codes(annotation.colors)
            if annotation.alpha is not None and self.maps_transparent:
                codes[annotation.alpha == 0] = TRANSPARENT
            return read_colors(codes, known, *meaning)
        assert annotation.pixels is not None
        values, places = np.full(256, -1), annotation.pixels
        if annotation.palette is not None:
            values[: len(annotation.palette)] = color_codes(annotation.palette)
        else:
            numbers = np.arange(annotation.levels)
            if annotation.bits == 16:
                numbers, places = np.unique(places, return_inverse=True)
                places = places.reshape(annotation.shape)
            shades = shades_of(numbers, annotation.bits)
            if shades is None:
                raise ClientError(
                    f"{self.source} maps colors, but the annotation is 16-bit gray with values that are not shades of "
                    'gray in 8 bits. Give a label map of its values, as in {"map": {"<label>": <pixel value>}}'
                )
            values = np.full(max(256, len(shades)), -1)
            values[: len(shades)] = shades * 0x010101
        shown = read_colors(values.clip(0), known, *meaning)
        found = np.where(values < 0, len(known), shown.places)
        return DecodedLabels(
            places, values, shown.labels[found], shown.unnamed[found], shown.wrong[found], is_color=True
        )

    def _labels_of(self, values: Array, num_classes: int) -> Meaning:
        """Return the labels (uint8) of values, and which of them are unnamed or wrong."""
        if self.scale is not None:
            labels = np.floor(values / self.scale).astype(np.int64)
            labels[(values == IGNORE) & (labels >= num_classes)] = IGNORE
            unnamed = np.zeros(len(values), bool)
        else:
            labels = np.array([self.labels.get(int(value), IGNORE) for value in values], np.int64)
            unnamed = np.array([int(value) not in self.labels and value != IGNORE for value in values], bool)
        return validate_labels(labels, unnamed, num_classes)

    def label_of(self, value: int, num_classes: int) -> int:
        """Return the label of one value: 255 if it is ignored or not valid."""
        return int(self._labels_of(np.array([value]), num_classes)[0][0])


def _count_unmapped(codes: Array, alpha: Array | None) -> dict[int, int]:
    """Return the pixel counts by color, with TRANSPARENT for alpha 0, or by alpha if only alpha can be class IDs."""
    if alpha is None:
        return count_colors(codes)
    values = np.unique(alpha)
    shown = codes[alpha > 0]
    partial = values[(values > 0) & (values < IGNORE)]
    if len(partial) and partial.max() < IGNORE / 2 and (shown == shown[0]).all():
        return count_colors(ALPHA + alpha.astype(np.int32))
    return count_colors(np.where(alpha == 0, TRANSPARENT, codes))


def _parse_integer(value: object) -> int:
    """Parse an integer, which can be a string and can end in `.0`; raises ValueError."""
    number = float(str(value))
    if not number.is_integer() or isinstance(value, bool):
        raise ValueError(f"{value!r} is not an integer")
    return int(number)


def _parse_names(names: object) -> dict[int, str]:
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, Mapping) or not all(isinstance(name, str) for name in names.values()):
        raise ValueError('names must be a list of names, or an object such as {"0": "road"}')
    return {_parse_label(label): name for label, name in names.items()}


def _parse_label(value: object) -> int:
    label = _parse_integer(value)
    if not 0 <= label <= IGNORE:
        raise ValueError(f"label {label} is not between 0 and 255")
    return label


def _reject_duplicate_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Raise ValueError if an object contains a key twice, because the JSON parser keeps only the last value."""
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        repeated = next(key for key in keys if keys.count(key) > 1)
        remedy = (
            '; for several pixel values of one label, use a list: {"map": {"0": [38, 40]}}'
            if re.fullmatch(r"\s*\d+\s*", repeated)
            else ""
        )
        raise ValueError(f"the key {repeated!r} occurs twice{remedy}")
    return content
