"""Palettes of annotations that contradict each other, or the gray annotations beside them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from container.data.audit.issues import Issue
from container.data.audit.statistics import ChannelStatistics
from container.data.labels.color_maps import color_name, split_code
from container.data.labels.depths import shades_of

_DARK = 64  # grays below
_MAP_COLORS = 'If the colors are right, map them by {"colors": …} in a label map'


def find_palette_conflicts(channels: Mapping[str, ChannelStatistics]) -> Iterator[Issue]:
    """Warn of palette indices that do not seem to be the class IDs.

    PNG optimizers keep only the colors that occur, so that the indices of each file are others.
    """
    faults: list[Issue] = []
    for findings in channels.values():
        if fault := _condensed_grays(findings, channels) or _contradicting_palettes(findings):
            faults.append(fault)
    if not faults:
        faults += _renumbered_colors(channels)
    yield from faults


def _condensed_grays(findings: ChannelStatistics, channels: Mapping[str, ChannelStatistics]) -> Issue | None:
    """Tell of palettes of grays whose colors, not their indices, are the pixel values of other annotations."""
    known = {value for each in channels.values() if _is_alike(each, findings) for value in _gray_values(each)}
    odd: set[str] = set()
    example = ""
    for index, colors in sorted(findings.palettes.items()):
        for color, names in sorted(colors.items()):
            red, green, blue = split_code(color)
            if not red == green == blue or red in (0, index):
                continue
            found = names
            if red not in known:  # a dark gray of a palette without unused entries is no color to look at
                is_class = red < min(findings.num_classes, _DARK)
                found = [name for name in names if name in findings.packed] if is_class else []
            odd.update(found)
            if found and not example:
                example = f"index {index} is the gray {red} in {found[0]}"
    if not odd:
        return None
    return Issue(
        "palette",
        f"channel {findings.channel}: {len(odd)} annotations have a palette of grays, as PNG optimizers write it: "
        f"{example}. The job reads the index, not the gray. If the grays are the pixel values, save these annotations "
        "without a palette: Image.open(path).convert('L').save(path) in Python with Pillow",
        tuple(sorted(odd)),
    )


def _gray_values(findings: ChannelStatistics) -> set[int]:
    """Return the pixel values of the gray annotations as the label map reads them."""
    found: set[int] = set()
    for bits, depth in findings.depths.items():
        shades = shades_of(np.array(sorted(depth.values), np.int64), bits) if "shades" in depth.names else None
        found.update(depth.values if shades is None else shades.tolist())
    return found


def _contradicting_palettes(findings: ChannelStatistics) -> Issue | None:
    """Tell of annotations that show an id in another color than most do."""
    odd: set[str] = set()
    example = ""
    for index, colors in sorted(findings.palettes.items()):
        (usual, most), *others = sorted(colors.items(), key=lambda item: (-len(item[1]), item[1][0]))
        for color, names in others:
            odd.update(names)
            example = example or f"id {index} is #{color:06x} in {names[0]} but #{usual:06x} in {most[0]}"
    if not odd:
        return None
    return Issue(
        "palette",
        f"channel {findings.channel}: {len(odd)} annotations show a class id in another color than most do, for "
        f"example {example}: ids count, not colors. {_MAP_COLORS}",
        tuple(sorted(odd)),
    )


def _renumbered_colors(channels: Mapping[str, ChannelStatistics]) -> Iterator[Issue]:
    """Tell of a color that has two indices, in one channel or in two that the same label map reads."""
    told: list[ChannelStatistics] = []
    for findings in channels.values():
        if any(_is_alike(each, findings) for each in told):
            continue
        told.append(findings)
        alike = [each for each in channels.values() if _is_alike(each, findings)]
        shared = set.union(*(each.shared_colors for each in alike))
        places: dict[int, dict[int, list[str]]] = {}
        for each in alike:
            for index, colors in each.palettes.items():
                for color, names in colors.items():
                    if color not in shared:
                        places.setdefault(color, {}).setdefault(index, []).extend(names)
        odd: set[str] = set()
        example = ""
        for color, indices in sorted(places.items()):
            (usual, most), *others = sorted(
                indices.items(),
                key=lambda item: (-len(item[1]), -item[0]),  # an optimizer lowers indices
            )
            for index, names in others:
                odd.update(names)
                example = example or f"{color_name(color)} is index {index} in {names[0]} but {usual} in {most[0]}"
        if odd:
            yield Issue(
                "palette",
                f"{len(odd)} annotations show a color by another palette index than most do, for example {example}: "
                f"the job reads the index, not the color. {_MAP_COLORS}",
                tuple(sorted(odd)),
            )


def _is_alike(one: ChannelStatistics, other: ChannelStatistics) -> bool:
    return one.label_map.content == other.label_map.content
