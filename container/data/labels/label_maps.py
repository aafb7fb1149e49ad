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
from container.data.labels.decoding import IGNORE, DecodedLabels, Meaning, UnmappedColorsError, read_colors, settle
from container.data.labels.depths import choose, shades_of
from container.errors import ClientError

_MAX_BYTES = 2**20  # a map with all 16-bit pixel values has half of this
_FORM = (
    'Write {"scale": 10}, {"map": {"<label>": <pixel value>}} or {"colors": {"#804080": <label>}}, '
    'each with {"names": {"<label>": "road"}} if you like'
)


class LabelMap:
    """Maps what stands in an annotation's pixels to training labels.

    `{"scale": s}`: label = floor(pixel / s). `{"map": {"<label>": pixel}}`: the key is the training label, the value is
    the pixel, or a list of them. `{"colors": {"#rrggbb": label}}`: by color, for annotations in RGB, RGBA or gray, or
    with a palette; the key `transparent` is for the pixels of RGBA and LA whose alpha is 0. What the map does not name
    is ignored. Pixel 255 is ignored unless the map names it, or the scale makes a class of it. `names` of the labels
    may stand beside each. Numbers may be strings.
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
            raise ClientError(f"{source} is not valid: {error}; {_FORM}") from error

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
            content = json.loads(data, object_pairs_hook=_without_repetition)
        except (OSError, ValueError, RecursionError) as error:
            raise ClientError(f"{path} is not readable JSON: {error}") from error
        if not isinstance(content, dict):
            raise ClientError(f"{path} must contain a JSON object. {_FORM}")
        return cls(content, str(path))

    def check(self, num_classes: int) -> None:
        """Raise ClientError that names the file, and a remedy, when a label is neither a class nor 255."""
        remedy = "raise num_classes, or write 255 to ignore such pixels"
        if turned := self.turned_round(num_classes):
            remedy = f"keys are labels and values are pixels: turned round it would be {json.dumps(turned)}"
        self._refuse((self.labels if self.colors is None else self.colors).values(), num_classes, "labels", remedy)
        self._refuse(self.names, num_classes, "names of labels", "raise num_classes, or leave them out")

    def _refuse(self, labels: Iterable[int], num_classes: int, what: str, remedy: str) -> None:
        wrong = sorted({label for label in labels if label >= num_classes and label != IGNORE})
        if wrong:
            listed = ", ".join(map(str, wrong[:10])) + (f" and {len(wrong) - 10} more" if wrong[10:] else "")
            raise ClientError(
                f"{self.source} holds {what} that are no class (num_classes is {num_classes}): {listed}; {remedy}"
            )

    def turned_round(self, num_classes: int) -> dict[str, dict[str, object]] | None:
        """Return the map with labels and pixels exchanged, where that makes one; None where not."""
        if not self.labels or len(set(self.labels.values())) < len(self.labels):
            return None
        if not all(value < num_classes or value == IGNORE for value in self.labels):
            return None
        turned: dict[str, dict[str, object]] = {
            "map": {str(value): self.labels[value] for value in sorted(self.labels)}
        }
        return turned | ({"names": {str(label): name for label, name in self.names.items()}} if self.names else {})

    @property
    def names_transparent(self) -> bool:
        """Whether the map gives transparent pixels a label."""
        return self.colors is not None and TRANSPARENT in self.colors

    @property
    def class_colors(self) -> dict[int, Color]:
        """Color of each label that has one: the first that is mapped to it."""
        found: dict[int, Color] = {}
        for code, label in (self.colors or {}).items():
            if code != TRANSPARENT:
                found.setdefault(label, split_code(code))
        return found

    def interpret(self, annotation: Annotation, num_classes: int, color_map: ColorMap | None = None) -> DecodedLabels:
        """Say what each value of a decoded annotation means; `color_map` is what Ground Truth says of its colors.

        Raises UnmappedColors when the annotation is in colors and neither this map nor `color_map` names any.
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
        assert pixels is not None  # an annotation has one or the other
        if annotation.palette is None and annotation.bits != 8:
            return self._by_gray(annotation, num_classes)
        values = np.arange(256)
        if color_map is not None and annotation.palette is not None:
            ids = color_map.repair(annotation.palette)
            return DecodedLabels(pixels, values, *self._labels_of(ids, num_classes), repaired=ids != values)
        bits = None if annotation.palette is not None else 8
        return DecodedLabels(pixels, values, *self._table(num_classes, values, 8), bits=bits)

    def _by_gray(self, annotation: Annotation, num_classes: int) -> DecodedLabels:
        """Read gray of 1, 2, 4 or 16 bits: by its numbers, or by its shades if only those fit this map."""
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
            return choose(by_numbers, None, self.scale)
        meaning = self._labels_of(shades, num_classes) if bits == 16 else self._table(num_classes, shades, bits)
        by_shades = DecodedLabels(places, shades, *meaning, bits=bits, numbers=values)
        return choose(by_numbers, by_shades, self.scale)

    def _table(self, num_classes: int, shades: Array, bits: int) -> Meaning:
        """Return what each shade means that `bits` can store."""
        if (num_classes, bits) not in self._tables:
            self._tables[num_classes, bits] = self._labels_of(shades, num_classes)
        return self._tables[num_classes, bits]

    def _read(self, content: dict[str, Any]) -> None:
        self.names = _read_names(content.pop("names", {}))
        if set(content) == {"scale"}:
            self.scale = float(str(content["scale"]))
            if not 0 < self.scale < float("inf"):
                raise ValueError("scale must be a number above 0")
        elif set(content) == {"map"} and isinstance(content["map"], Mapping):
            self._read_map(content["map"])
        elif set(content) == {"colors"} and isinstance(content["colors"], Mapping):
            self._read_colors(content["colors"])
        elif content or not self.names:
            raise ValueError('it must be an object with one of the keys "scale", "map" and "colors"')
        else:
            self.scale = 1.0

    def _read_map(self, entries: Mapping[str, Any]) -> None:
        for key, entry in entries.items():
            label = _label(key)
            for pixel in entry if isinstance(entry, list) else [entry]:
                value = _whole(pixel)
                if value < 0:
                    raise ValueError(f"pixel value {value} is negative")
                if self.labels.setdefault(value, label) != label:
                    turned = " (is the map turned round? its keys are labels, its values pixels)"
                    raise ValueError(f"pixel {value} is mapped to two labels, {self.labels[value]} and {label}{turned}")
        if not self.labels:
            raise ValueError("the map is empty")

    def _read_colors(self, entries: Mapping[str, Any]) -> None:
        self.colors = {}
        for text, entry in entries.items():
            code, label = color_key(text), _label(entry)
            if self.colors.setdefault(code, label) != label:
                raise ValueError(f"color {text} is mapped to two labels, {self.colors[code]} and {label}")
        if not self.colors:
            raise ValueError("there is no color in it")

    def _by_color(self, annotation: Annotation, num_classes: int) -> DecodedLabels:
        assert self.colors is not None
        known = np.array(list(self.colors), np.int64)
        labels = np.array(list(self.colors.values()), np.int64)
        meaning = settle(labels, np.zeros(len(labels), bool), num_classes)
        if annotation.colors is not None:
            codes = color_codes(annotation.colors)
            if annotation.alpha is not None and self.names_transparent:
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
        """Return labels (uint8), unnamed and wrong of ids."""
        if self.scale is not None:
            labels = np.floor(values / self.scale).astype(np.int64)
            labels[(values == IGNORE) & (labels >= num_classes)] = IGNORE
            unnamed = np.zeros(len(values), bool)
        else:
            labels = np.array([self.labels.get(int(value), IGNORE) for value in values], np.int64)
            unnamed = np.array([int(value) not in self.labels and value != IGNORE for value in values], bool)
        return settle(labels, unnamed, num_classes)

    def label_of(self, value: int, num_classes: int) -> int:
        """Return the label of one id, 255 when it is ignored or no class."""
        return int(self._labels_of(np.array([value]), num_classes)[0][0])


def _count_unmapped(codes: Array, alpha: Array | None) -> dict[int, int]:
    """Count the pixels by color, those whose alpha is 0 as TRANSPARENT; by alpha if only alpha can be class IDs."""
    if alpha is None:
        return count_colors(codes)
    values = np.unique(alpha)
    shown = codes[alpha > 0]
    partial = values[(values > 0) & (values < IGNORE)]
    if len(partial) and partial.max() < IGNORE / 2 and (shown == shown[0]).all():
        return count_colors(ALPHA + alpha.astype(np.int32))
    return count_colors(np.where(alpha == 0, TRANSPARENT, codes))


def _whole(value: object) -> int:
    """Read a whole number, which may be a string, and end in `.0`; raises ValueError."""
    number = float(str(value))
    if not number.is_integer() or isinstance(value, bool):
        raise ValueError(f"{value!r} is no whole number")
    return int(number)


def _read_names(names: object) -> dict[int, str]:
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, Mapping) or not all(isinstance(name, str) for name in names.values()):
        raise ValueError('names must be a list of names, or an object such as {"0": "road"}')
    return {_label(label): name for label, name in names.items()}


def _label(value: object) -> int:
    label = _whole(value)
    if not 0 <= label <= IGNORE:
        raise ValueError(f"label {label} does not lie between 0 and 255")
    return label


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse an object that gives a key twice: JSON would keep the last without a word."""
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        repeated = next(key for key in keys if keys.count(key) > 1)
        remedy = (
            '; several pixel values of one label are a list: {"map": {"0": [38, 40]}}'
            if re.fullmatch(r"\s*\d+\s*", repeated)
            else ""
        )
        raise ValueError(f"the key {repeated!r} stands in it twice{remedy}")
    return content
