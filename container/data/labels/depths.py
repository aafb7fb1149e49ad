"""Bit depths of gray annotations: whether values are numbers or shades, and conflicts between annotations.

PNG optimizers, Pillow and scikit-image store a mask of 0 and 255 in 1 bit, as 0 and 1. Other programs store class IDs
in few bits. Both files have the same content. Only the label map, or the other annotations, show the meaning.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

import numpy as np

from container.arrays import Array
from container.data.labels.color_maps import FILES
from container.data.labels.decoding import IGNORE, DecodedLabels
from container.errors import shorten_list

# How an annotation was read: numbers and shades have the same labels (alike), or only one of them fits the label map,
# or both fit, and the annotation was read by its numbers (either).
How = Literal["alike", "numbers", "shades", "either"]

DEPTHS = (1, 2, 4, 8, 16)

_BY_NUMBERS: tuple[How, ...] = ("either", "numbers")
_WIDE = 257  # from 8 bits to 16: white is 65,535
_LISTED = 3  # names in the message
_ENTRIES = 24  # entries of a map in the message, because FailureReason has 1,024 characters
RESAVE = (
    "Save these annotations with 8 bits and the pixel value that white means, for example 255 with Pillow: "
    "Image.open(path).convert('L').save(path)"
)


def shades_of(numbers: Array, bits: int) -> Array | None:
    """Return the 8-bit shades of gray of stored numbers, int64; None if 16-bit numbers are not such shades."""
    if bits == 16 and (numbers % _WIDE).any():
        return None
    shades: Array = numbers // _WIDE if bits == 16 else numbers.astype(np.int64) * 255 // (2**bits - 1)
    return shades


def choose_interpretation(numbers: DecodedLabels, shades: DecodedLabels | None, scale: float | None) -> DecodedLabels:
    """Return the interpretation that fits the label map with this scale, or by numbers if both fit."""
    present = (numbers.counts > 0) & (numbers.values != 0)
    if shades is None or not present.any():
        return dataclasses.replace(numbers, how="numbers" if shades is None else "alike")
    is_same = all(
        np.array_equal(one[present], other[present])
        for one, other in ((numbers.labels, shades.labels), (numbers.wrong, shades.wrong))
    )
    fits = _fits(numbers, present, scale), _fits(shades, present, scale)
    if fits == (False, True):
        return dataclasses.replace(shades, how="alike" if is_same else "shades")
    how: How = "alike" if is_same else "numbers" if fits == (True, False) else "either"
    return dataclasses.replace(numbers, how=how)


def _fits(reading: DecodedLabels, present: Array, scale: float | None) -> bool:
    """Return whether all values are valid class IDs, and the label map contains at least one of them."""
    meant = ~reading.unnamed & (reading.values >= (scale or 0))
    return not reading.wrong[present].any() and bool(meant[present].any())


@dataclasses.dataclass
class Depth:
    """Gray annotations of one bit depth in a channel, except for black ones: names by interpretation."""

    names: dict[How, list[str]] = dataclasses.field(default_factory=dict)
    values: set[int] = dataclasses.field(default_factory=set)  # as stored

    def add(self, name: str, reading: DecodedLabels, limit: int) -> None:
        """Add an annotation, unless it is black; about `limit` values are stored."""
        present = reading.counts > 0
        stored = reading.stored[present]
        if stored.any():
            self.names.setdefault(reading.how, []).append(name)
        if len(self.values) < limit:
            self.values.update(stored.tolist())


Depths = Mapping[int, Depth]


def find_conflict(
    own: Depths, others: Depths, is_all: bool, with_bad: bool = False
) -> tuple[int, list[str], list[int]] | None:
    """Return an ambiguous depth, its ambiguous annotations, and the depths that conflict with it, or None.

    `others` contains the depths of the same channel, or of another one with the same label map. `is_all` specifies
    whether all annotations were read. With `with_bad`, unusable annotations count, too, because the job fails anyway.
    """
    for bits, depth in sorted(own.items()):
        for how in _BY_NUMBERS:
            if names := depth.names.get(how, []):
                there = sorted(others.items())
                conflicts = [
                    each for each, its in there if _contradicts(how, bits, each, its, own is others, is_all, with_bad)
                ]
                if conflicts:
                    return bits, names, conflicts
    return None


def _contradicts(
    how: How, bits: int, other: int, each: Depth, is_same_channel: bool, is_all: bool, with_bad: bool
) -> bool:
    """Return whether annotations of another depth (or of this one) show that some values are not numbers.

    - If both interpretations fit, two depths in one channel conflict, because white can be the same class in both. In
      different channels, they conflict only if the same shade occurs.
    - If only numbers fit, annotations of less than 8 bits that were interpreted as shades conflict, and annotations of
      8 bits that contain only shades of this depth.
    """
    if "shades" in each.names and (max(bits, other) < 8 or bits == other):
        return True
    if bits == other or not (each.values - {0} if with_bad else each.names):
        return False
    if how == "either" and is_same_channel:
        return True
    shades = set(_shades({other: each})) - {0}
    steps = set(range(0, 256, max(1, 255 // (2**bits - 1))))
    if how == "either":
        return bool(shades & steps)
    return is_all and bits < 8 <= other and bool(shades) and shades <= steps


def summarize(depths: Depths) -> list[int]:
    """Return two numbers per bit depth, 0 or 1: whether an annotation is ambiguous, and whether there is one."""
    found = [depths[bits].names if bits in depths else {} for bits in DEPTHS]
    return [int(flag) for names in found for flag in ("either" in names, bool(names))]


def find_mixed_hosts(rows: Iterable[list[int]]) -> tuple[int, list[int]] | None:
    """Return the result of `find_conflict` without names, from the results of `summarize` on all hosts."""
    unclear, others = (
        [bits for place, bits in enumerate(DEPTHS) if any(row[2 * place + which] for row in rows)] for which in (0, 1)
    )
    for bits in unclear:
        if contradicting := [other for other in others if other != bits]:
            return bits, contradicting
    return None


def _shades(depths: Depths) -> Iterator[int]:
    for bits, depth in depths.items():
        shades = shades_of(np.array(sorted(depth.values), np.int64), bits)
        yield from [] if shades is None else shades.tolist()


def describe(
    mixed: tuple[int, list[str], list[int]], where: str, suggestion: str | None
) -> tuple[str, tuple[str, ...]]:
    """Return the message and the details of a conflict; `where` is a channel or two."""
    bits, names, others = mixed
    listed = shorten_list(names, _LISTED)
    message = f"{explain(where, bits, others)}. The annotations of these images have {list_bits({bits})}: {listed}. "
    if not suggestion:
        return f"{message}{RESAVE}", tuple(names)
    label = ', with the label of white as "#ffffff" (255: ignored),' if "#ffffff" in suggestion else ""
    message += f"Do one of the following: (1) Put {suggestion}{label} into {FILES}. (2) {RESAVE}"
    return message, tuple(names)


def explain(where: str, bits: int, others: Iterable[int]) -> str:
    """Return the problem with annotations of `bits` and of other depths."""
    white = f"white in {list_bits({bits})} can mean pixel value {2**bits - 1} or 255"
    return f"{where} gray annotations of {list_bits({bits, *others})}, and {white}"


def list_bits(depths: Iterable[int]) -> str:
    """Format depths, for example `1 bit and 8 bits`."""
    return " and ".join(f"{bits} bit{'s' if bits > 1 else ''}" for bits in sorted(depths))


def suggest_shades(depths: Iterable[Depths], classes: Mapping[int, int], num_classes: int) -> str | None:
    """Return a label map by shades for all depths, or None; `classes` contains the labels of 8-bit pixel values.

    If several classes occur, the map contains their colors. Otherwise, it contains a class per shade.
    """
    seen = sorted({shade for each in depths for shade in _shades(each)})
    if len({classes[shade] for shade in seen if shade in classes}) > 1:
        entries = {f"#{shade:02x}{shade:02x}{shade:02x}": label for shade, label in sorted(classes.items())}
        entries.setdefault("#ffffff", IGNORE)
        return json.dumps({"colors": entries}) if len(entries) <= _ENTRIES else None
    others = [shade for shade in seen if shade != IGNORE]
    chosen = others if len(others) > 1 and len(seen) != num_classes else seen
    if not 1 < len(chosen) <= num_classes:
        return None
    if IGNORE in seen and IGNORE not in chosen:  # the message explains the entry of white
        entries = {f"#{shade:02x}{shade:02x}{shade:02x}": label for label, shade in enumerate(chosen)}
        return json.dumps({"colors": {**entries, "#ffffff": IGNORE}})
    return json.dumps({"map": {str(label): shade for label, shade in enumerate(chosen)}})
