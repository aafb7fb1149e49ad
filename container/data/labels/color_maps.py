"""Color codes, and the color maps of Ground Truth metadata.

https://docs.aws.amazon.com/sagemaker/latest/dg/sms-data-output.html (semantic segmentation job output)
"""

from __future__ import annotations

import dataclasses
import functools
import json
import logging
import re
from collections.abc import Mapping

import numpy as np

from container.arrays import Array, Uint8Array
from container.errors import ClientError

LOG = logging.getLogger(__name__)

Color = tuple[int, int, int]

FILES = "label_map/<channel>_label_map.json for each of the channels train, validation (and test)"

TRANSPARENT = 1 << 24  # code of pixels with alpha 0, if the label map contains `transparent`
ALPHA = 2 << 24  # plus alpha: code of pixels in an annotation that has class IDs in its alpha channel

_MAX_BYTES = 2**20  # of a metadata record
_COUNTED = 1024  # colors of one image
_SAME_CLASSES = "Use images that were labeled with the same classes in the same order"


def parse_color(text: str) -> Color:
    """Parse `#804080`, with or without `#`; raises ValueError."""
    if not re.fullmatch("#?[0-9a-fA-F]{6}", text.strip()):
        raise ValueError(f"{text!r} is not a color. Write #rrggbb, or transparent")
    red, green, blue = bytes.fromhex(text.strip().lstrip("#"))
    return red, green, blue


def color_key(text: str) -> int:
    """Return the code of a color in a label map, or of `transparent`; raises ValueError."""
    return TRANSPARENT if text.strip().lower() == "transparent" else color_code(parse_color(text))


def color_name(code: int) -> str:
    """Format a code as `#rrggbb`, or `transparent`."""
    return "transparent" if code == TRANSPARENT else f"#{code:06x}"


def split_code(code: int) -> Color:
    """Return red, green and blue of 0xrrggbb."""
    return code >> 16 & 255, code >> 8 & 255, code & 255


def color_code(color: Color) -> int:
    """Return 0xrrggbb."""
    return color[0] << 16 | color[1] << 8 | color[2]


def color_codes(colors: Uint8Array) -> Array:
    """Return 0xrrggbb, int32 (…), of uint8 RGB colors (…, 3)."""
    wide = colors.astype(np.int32)
    codes: Array = wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]
    return codes


def color_places(codes: Array, known: tuple[int, ...]) -> Array:
    """Return the index of each code in `known`, or len(known) for other codes, in the shape of `codes`."""
    places: Array = _places(known)[codes]
    return places


@functools.lru_cache(maxsize=4)
def _places(known: tuple[int, ...]) -> Array:
    """Return a table with an entry for each possible color (16 MB), for one lookup per pixel."""
    table = np.full(TRANSPARENT + 1, len(known), np.uint8 if len(known) < 256 else np.uint16)
    table[list(known)] = np.arange(len(known))
    return table


def count_colors(codes: Array) -> dict[int, int]:
    """Return the pixel counts of the most common colors, of which an annotation has few."""
    values, counts = np.unique(codes, return_counts=True)
    most = np.argsort(-counts, kind="stable")[:_COUNTED]
    return dict(zip(values[most].tolist(), counts[most].tolist(), strict=True))


@dataclasses.dataclass(frozen=True)
class ColorMap:
    """The classes of an `internal-color-map`: names and colors by class ID."""

    names: Mapping[int, str]
    colors: Mapping[int, Color]

    def as_arrays(self) -> tuple[Array, Array]:
        """Return the colors (0xrrggbb) and their class IDs, int64 each; raises ClientError if two share a color."""
        owners = self._owners()
        if shared := next((ids for ids in owners.values() if len(ids) > 1), None):
            names = " and ".join(f"{self.names[index]} ({index})" for index in shared)
            raise ClientError(
                f"The classes {names} have the same color, so an RGB mask cannot contain both. Use masks with class IDs"
            )
        return np.array(list(owners), np.int64), np.array([ids[0] for ids in owners.values()], np.int64)

    def repair(self, palette: Uint8Array) -> Array:
        """Return the class of each palette index, int64 (256,): by color if the color and the index conflict.

        `palette` is uint8 RGB (n, 3). Ground Truth masks from June to September 2020 have correct colors, but wrong
        indices. Indices whose color belongs to no class or to several classes do not change.
        """
        owners = self._owners()
        table = np.arange(256)
        for index, code in enumerate(color_codes(palette[:256]).tolist()):
            mine = owners.get(code, [])
            if len(mine) == 1 and index not in mine:
                table[index] = mine[0]
        return table

    def _owners(self) -> dict[int, list[int]]:
        """List the classes of each color (0xrrggbb)."""
        owners: dict[int, list[int]] = {}
        for index in sorted(self.colors):
            owners.setdefault(color_code(self.colors[index]), []).append(index)
        return owners


class ColorMaps:
    """Color maps of all records, merged, because the map of a record can contain only the classes of its image."""

    def __init__(self) -> None:
        self._names: dict[int, tuple[str, str]] = {}  # name by class ID, and the record that contains it
        self._colors: dict[int, Color] = {}
        self._logged = False

    def add(self, own: ColorMap, record: str) -> ColorMap:
        """Add the map of a record; returns it with the classes of other records.

        Raises ClientError that contains both records and classes if they conflict.
        """
        ids = {name: index for index, (name, _) in self._names.items()}
        for index, name in own.names.items():
            known, source = self._names.get(index, (name, record))
            if known != name:
                raise ClientError(f"Class {index} is {name} in {record}, but {known} in {source}. {_SAME_CLASSES}")
            other = ids.get(name, index)
            if other != index and other not in own.names:
                raise ClientError(
                    f"{name} is class {index} in {record}, but class {other} in {self._names[other][1]}. "
                    f"{_SAME_CLASSES}"
                )
        for index, name in own.names.items():
            _, source = self._names.setdefault(index, (name, record))
            if self._colors.setdefault(index, own.colors[index]) != own.colors[index] and not self._logged:
                self._logged = True
                LOG.warning(
                    "%s has another color for class %s than %s. The job uses the colors of each annotation.",
                    record,
                    name,
                    source,
                )
        return ColorMap({**self.merged.names, **own.names}, {**self._colors, **own.colors})

    @property
    def merged(self) -> ColorMap:
        """All classes of all records, each with its first color."""
        return ColorMap({index: name for index, (name, _) in self._names.items()}, dict(self._colors))


def read_color_map(record: bytes, name: str) -> ColorMap | None:
    """Read the `internal-color-map` of a metadata record, or None; raises ClientError that contains `name`."""
    if len(record) > _MAX_BYTES:
        raise ClientError(
            f"{name}: the metadata has {len(record)} bytes. The limit is {_MAX_BYTES} bytes, and a line of a Ground "
            "Truth manifest has at most 100,000 characters. Make sure that the record is the metadata of the annotation"
        )
    try:
        entries = json.loads(record).get("internal-color-map")
        if not entries:
            return None
        return ColorMap(
            names={int(index): str(entry["class-name"]) for index, entry in entries.items()},
            colors={int(index): parse_color(entry["hex-color"]) for index, entry in entries.items()},
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ClientError(
            f"{name}: the metadata of the annotation cannot be read: {type(error).__name__}: {error}"
        ) from error
