"""Color maps: look-up, suggestions, and Ground Truth metadata.

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

TRANSPARENT = 1 << 24  # the code of pixels whose alpha is 0, where a label map names them
ALPHA = 2 << 24  # plus alpha: the code of pixels in an annotation that has values in its alpha channel alone

_MAX_BYTES = 2**20  # of a metadata record
_COUNTED = 1024  # colors of one picture
_ONE_LABELLING = "train on images that were labeled with the same classes in the same order"


def parse_color(text: str) -> Color:
    """Parse `#804080`, with or without `#`; raises ValueError."""
    if not re.fullmatch("#?[0-9a-fA-F]{6}", text.strip()):
        raise ValueError(f"{text!r} is no color: write #rrggbb, or transparent")
    red, green, blue = bytes.fromhex(text.strip().lstrip("#"))
    return red, green, blue


def color_key(text: str) -> int:
    """Parse a color of a label map, or `transparent`, to its code; raises ValueError."""
    return TRANSPARENT if text.strip().lower() == "transparent" else color_code(parse_color(text))


def color_name(code: int) -> str:
    """Write a code as `#rrggbb`, or `transparent`."""
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
    """Return the place of each code in `known`, and len(known) for what is not there; the shape is that of `codes`."""
    places: Array = _places(known)[codes]
    return places


@functools.lru_cache(maxsize=4)
def _places(known: tuple[int, ...]) -> Array:
    """One entry for every color there is (16 MB): a look-up per pixel, however many colors are known."""
    table = np.full(TRANSPARENT + 1, len(known), np.uint8 if len(known) < 256 else np.uint16)
    table[list(known)] = np.arange(len(known))
    return table


def count_colors(codes: Array) -> dict[int, int]:
    """Count the pixels of each color, the commonest only where a picture has more than a mask could."""
    values, counts = np.unique(codes, return_counts=True)
    most = np.argsort(-counts, kind="stable")[:_COUNTED]
    return dict(zip(values[most].tolist(), counts[most].tolist(), strict=True))


@dataclasses.dataclass(frozen=True)
class ColorMap:
    """The classes of an `internal-color-map`: names and colors by class id."""

    names: Mapping[int, str]
    colors: Mapping[int, Color]

    def as_arrays(self) -> tuple[Array, Array]:
        """Return the colors (0xrrggbb) and their class ids, int64 each; raises ClientError when two share a color."""
        owners = self._owners()
        if shared := next((ids for ids in owners.values() if len(ids) > 1), None):
            names = " and ".join(f"{self.names[index]} ({index})" for index in shared)
            raise ClientError(f"an RGB mask cannot tell {names} apart, which have one color: give masks of class ids")
        return np.array(list(owners), np.int64), np.array([ids[0] for ids in owners.values()], np.int64)

    def repair(self, palette: Uint8Array) -> Array:
        """Return the class of each palette index, int64 (256,), by its color where that contradicts the index.

        `palette` is uint8 RGB (n, 3). Masks made between June and September 2020 have the right colors under wrong
        indices. Colors that belong to no class, or to several, keep their index.
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
    """What the metadata of all records says together; each may list the classes of its own image only."""

    def __init__(self) -> None:
        self._names: dict[int, tuple[str, str]] = {}  # class id: its name, and the record that said so
        self._colors: dict[int, Color] = {}
        self._told = False

    def add(self, own: ColorMap, record: str) -> ColorMap:
        """Take in a record's map; returns it with the classes known from others.

        Raises ClientError that names both records and classes where one contradicts another.
        """
        ids = {name: index for index, (name, _) in self._names.items()}
        for index, name in own.names.items():
            known, source = self._names.get(index, (name, record))
            if known != name:
                raise ClientError(
                    f"{record} says class {index} is {name}, {source} says it is {known}: {_ONE_LABELLING}"
                )
            other = ids.get(name, index)
            if other != index and other not in own.names:
                raise ClientError(
                    f"{record} says {name} is class {index}, {self._names[other][1]} says it is class {other}: "
                    f"{_ONE_LABELLING}"
                )
        for index, name in own.names.items():
            _, source = self._names.setdefault(index, (name, record))
            if self._colors.setdefault(index, own.colors[index]) != own.colors[index] and not self._told:
                self._told = True
                LOG.warning(
                    "%s shows class %s in another color than %s does: each mask is read by its own colors",
                    record,
                    name,
                    source,
                )
        return ColorMap({**self.merged.names, **own.names}, {**self._colors, **own.colors})

    @property
    def merged(self) -> ColorMap:
        """All classes that any record has named, each in the first color given."""
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
        raise ClientError(f"{name}: the label's metadata is not readable: {type(error).__name__}: {error}") from error
