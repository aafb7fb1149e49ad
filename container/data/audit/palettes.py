"""Palettes of annotations that conflict with each other, or with gray annotations."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np

from container.data.audit.issues import WITHOUT_PALETTE, Issue
from container.data.audit.statistics import ChannelStatistics, with_same_map
from container.data.labels.color_maps import color_name, split_code
from container.data.labels.depths import shades_of

_DARK = 64  # gray levels below this are dark
_MAP_COLORS = 'If the colors are right, map them with {"colors": …} in a label map'


def find_palette_conflicts(channels: Mapping[str, ChannelStatistics]) -> Iterator[Issue]:
    """Yield warnings about palette indices that are probably not the class IDs.

    PNG optimizers keep only the colors that occur, so the indices of each file differ.
    """
    issues: list[Issue] = []
    for statistics in channels.values():
        if issue := _condensed_grays(statistics, channels) or _conflicting_palettes(statistics):
            issues.append(issue)
    yield from issues or _renumbered_colors(channels)


def _condensed_grays(statistics: ChannelStatistics, channels: Mapping[str, ChannelStatistics]) -> Issue | None:
    """Warn of gray palettes whose colors, not indices, are the pixel values of other annotations."""
    known = {value for each in with_same_map(statistics, channels) for value in _gray_values(each)}
    odd: set[str] = set()
    example = ""
    for index, colors in sorted(statistics.palettes.items()):
        for color, names in sorted(colors.items()):
            red, green, blue = split_code(color)
            if not red == green == blue or red in (0, index):
                continue
            if red not in known:  # a dark gray in a palette without unused entries is probably a class ID
                is_class = red < min(statistics.num_classes, _DARK)
                names = [name for name in names if name in statistics.packed] if is_class else []
            odd.update(names)
            if names and not example:
                example = f"index {index} has the gray value {red} in {names[0]}"
    return _warn(
        odd,
        f"channel {statistics.channel}: {len(odd)} annotations have a gray palette, probably from a PNG optimizer: "
        f"{example}. The job uses the index, not the gray value. If the gray values are the pixel values, "
        f"{WITHOUT_PALETTE}",
    )


def _gray_values(statistics: ChannelStatistics) -> set[int]:
    """Return the pixel values of the gray annotations, as the label map uses them."""
    values: set[int] = set()
    for bits, depth in statistics.depths.items():
        shades = shades_of(np.array(sorted(depth.values), np.int64), bits) if "shades" in depth.names else None
        values.update(depth.values if shades is None else shades.tolist())
    return values


def _conflicting_palettes(statistics: ChannelStatistics) -> Issue | None:
    """Warn of annotations in which an index has another color than in most annotations."""
    odd, example = _find_minority(
        statistics.palettes,
        lambda color, names: (-len(names), names[0]),
        lambda index, color, name, usual, most: f"index {index} is #{color:06x} in {name} but #{usual:06x} in {most}",
    )
    return _warn(
        odd,
        f"channel {statistics.channel}: {len(odd)} annotations show a class ID in another color than most annotations, "
        f"for example {example}. The job uses the class ID, not the color. {_MAP_COLORS}",
    )


def _renumbered_colors(channels: Mapping[str, ChannelStatistics]) -> Iterator[Issue]:
    """Warn of a color with two indices, in one channel or in two channels with the same label map."""
    done: list[ChannelStatistics] = []
    for statistics in channels.values():
        if statistics in done:
            continue
        alike = with_same_map(statistics, channels)
        done += alike
        shared = set.union(*(each.shared_colors for each in alike))
        indices: dict[int, dict[int, list[str]]] = {}
        for each in alike:
            for index, colors in each.palettes.items():
                for color, names in colors.items():
                    if color not in shared:
                        indices.setdefault(color, {}).setdefault(index, []).extend(names)
        odd, example = _find_minority(
            indices,
            lambda index, names: (-len(names), -index),  # an optimizer decreases indices
            lambda color, index, name, usual, most: (
                f"{color_name(color)} is index {index} in {name} but {usual} in {most}"
            ),
        )
        issue = _warn(
            odd,
            f"{len(odd)} annotations show a color with another palette index than most annotations, for example "
            f"{example}. The job uses the index, not the color. {_MAP_COLORS}",
        )
        yield from [issue] if issue else []


def _find_minority(
    groups: Mapping[int, Mapping[int, list[str]]],
    order: Callable[[int, list[str]], tuple[int, int | str]],
    describe: Callable[[int, int, str, int, str], str],
) -> tuple[set[str], str]:
    """Return the names of all values but the first in `order`, per group, and a description of the first of them."""
    odd: set[str] = set()
    example = ""
    for key, names_of in sorted(groups.items()):
        (usual, most), *others = sorted(names_of.items(), key=lambda item: order(*item))
        for value, names in others:
            odd.update(names)
            example = example or describe(key, value, names[0], usual, most[0])
    return odd, example


def _warn(names: Iterable[str], message: str) -> Issue | None:
    return Issue("palette", message, tuple(sorted(names))) if names else None
