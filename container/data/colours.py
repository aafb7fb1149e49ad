"""Colours as meaning: fast look-up, the map to suggest, and what SageMaker Ground Truth says of its masks.

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

Colour = tuple[int, int, int]

FILES = "label_map/<channel>_label_map.json for each of the channels train, validation (and test)"

TRANSPARENT = 1 << 24  # the code of pixels whose alpha is 0, where a label map names them
ALPHA = 2 << 24  # plus alpha: the code of pixels in an annotation that has values in its alpha channel alone

_COUNTED = 1024  # colours of one picture
_ONE_LABELLING = "train on images that were labelled with the same classes in the same order"


def parse_colour(text: str) -> Colour:
    """Parse `#804080`, with or without `#`; raises ValueError."""
    if not re.fullmatch("#?[0-9a-fA-F]{6}", text.strip()):
        raise ValueError(f"{text!r} is no colour: write #rrggbb, or transparent")
    red, green, blue = bytes.fromhex(text.strip().lstrip("#"))
    return red, green, blue


def color_key(text: str) -> int:
    """Parse a color of a label map, or `transparent`, to its code; raises ValueError."""
    return TRANSPARENT if text.strip().lower() == "transparent" else colour_code(parse_colour(text))


def color_name(code: int) -> str:
    """Write a code as `#rrggbb`, or `transparent`."""
    return "transparent" if code == TRANSPARENT else f"#{code:06x}"


def split_code(code: int) -> Colour:
    """Return red, green and blue of 0xrrggbb."""
    return code >> 16 & 255, code >> 8 & 255, code & 255


def colour_code(colour: Colour) -> int:
    """Return 0xrrggbb."""
    return colour[0] << 16 | colour[1] << 8 | colour[2]


def colour_codes(colours: Uint8Array) -> Array:
    """Return 0xrrggbb, int32 (…), of uint8 RGB colours (…, 3)."""
    wide = colours.astype(np.int32)
    codes: Array = wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]
    return codes


def colour_places(codes: Array, known: tuple[int, ...]) -> Array:
    """Return the place of each code in `known`, and len(known) for what is not there; the shape is that of `codes`."""
    places: Array = _places(known)[codes]
    return places


@functools.lru_cache(maxsize=4)
def _places(known: tuple[int, ...]) -> Array:
    """One entry for every colour there is (16 MB): a look-up per pixel, however many colours are known."""
    table = np.full(TRANSPARENT + 1, len(known), np.uint8 if len(known) < 256 else np.uint16)
    table[list(known)] = np.arange(len(known))
    return table


def count_colours(codes: Array) -> dict[int, int]:
    """Count the pixels of each colour, the commonest only where a picture has more than a mask could."""
    values, counts = np.unique(codes, return_counts=True)
    most = np.argsort(-counts, kind="stable")[:_COUNTED]
    return dict(zip(values[most].tolist(), counts[most].tolist(), strict=True))


@dataclasses.dataclass(frozen=True)
class ColourMap:
    """The classes of an `internal-color-map`: names and colours by class id."""

    names: Mapping[int, str]
    colours: Mapping[int, Colour]

    def as_arrays(self) -> tuple[Array, Array]:
        """Return the colours (0xrrggbb) and their class ids, int64 each; raises ClientError when two share a colour."""
        owners = self._owners()
        if shared := next((ids for ids in owners.values() if len(ids) > 1), None):
            names = " and ".join(f"{self.names[index]} ({index})" for index in shared)
            raise ClientError(f"an RGB mask cannot tell {names} apart, which have one colour: give masks of class ids")
        return np.array(list(owners), np.int64), np.array([ids[0] for ids in owners.values()], np.int64)

    def repair(self, palette: Uint8Array) -> Array:
        """Return the class of each palette index, int64 (256,), by its colour where that contradicts the index.

        `palette` is uint8 RGB (n, 3). Masks made between June and September 2020 have the right colours under wrong
        indices. Colours that belong to no class, or to several, keep their index.
        """
        owners = self._owners()
        table = np.arange(256)
        for index, code in enumerate(colour_codes(palette[:256]).tolist()):
            mine = owners.get(code, [])
            if len(mine) == 1 and index not in mine:
                table[index] = mine[0]
        return table

    def _owners(self) -> dict[int, list[int]]:
        """List the classes of each colour (0xrrggbb)."""
        owners: dict[int, list[int]] = {}
        for index in sorted(self.colours):
            owners.setdefault(colour_code(self.colours[index]), []).append(index)
        return owners


class ColourMaps:
    """What the metadata of all records says together; each may list the classes of its own image only."""

    def __init__(self) -> None:
        self._names: dict[int, tuple[str, str]] = {}  # class id: its name, and the record that said so
        self._colours: dict[int, Colour] = {}
        self._told = False

    def add(self, own: ColourMap, record: str) -> ColourMap:
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
            if self._colours.setdefault(index, own.colours[index]) != own.colours[index] and not self._told:
                self._told = True
                LOG.warning(
                    "%s shows class %s in another colour than %s does: each mask is read by its own colours",
                    record,
                    name,
                    source,
                )
        return ColourMap({**self.united.names, **own.names}, {**self._colours, **own.colours})

    @property
    def united(self) -> ColourMap:
        """All classes that any record has named, each in the first colour given."""
        return ColourMap({index: name for index, (name, _) in self._names.items()}, dict(self._colours))


def read_colour_map(record: bytes, name: str) -> ColourMap | None:
    """Read a metadata record's `internal-color-map`; None when it has none. Raises ClientError naming the record."""
    try:
        entries = json.loads(record).get("internal-color-map")
        if not entries:
            return None
        return ColourMap(
            names={int(index): str(entry["class-name"]) for index, entry in entries.items()},
            colours={int(index): parse_colour(entry["hex-color"]) for index, entry in entries.items()},
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ClientError(f"{name}: the label's metadata is not readable: {type(error).__name__}: {error}") from error
