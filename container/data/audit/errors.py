"""Errors in the data that make training impossible, with fixes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping

from container.data.audit.advice import advise_known_values
from container.data.audit.issues import WITHOUT_PALETTE, Issue, list_values
from container.data.audit.statistics import ChannelStatistics, Kind, UnusablePair, with_same_map
from container.data.labels.color_maps import FILES, color_name, split_code
from container.data.labels.color_schemes import VOC_BORDER, exchange, suggest_color_map, write_colors
from container.data.labels.decoding import IGNORE, INVALID_VALUE_FIX
from container.data.labels.depths import describe, find_conflict, suggest_shades
from container.data.labels.label_maps import INVERTED, LabelMap
from container.data.record_layout import REMEDY
from container.errors import ClientError

_REASONS: Mapping[Kind, str] = {
    "unreadable": "pairs that cannot be read. Replace or remove them",
    "same": "images that are the same file as their annotations. Replace them with the input images",
    "size": "pairs whose image and annotation have different sizes. Export the annotations in the size of the images",
    "colour": "annotations whose colors cannot be read",
}
_LISTED_COLORS = 5
_MOST_ENTRIES = 48  # of a suggested map
_MOST_WRONG = 64  # invalid pixel values; with more, the annotations of a stream can be images
_SMOOTH = 16  # with more values than this and twice the classes, edges are probably smoothed


def find_errors(
    channels: Mapping[str, ChannelStatistics], budget: int, known: Mapping[str, ChannelStatistics] | None = None
) -> list[Issue]:
    """Return the errors, the most important first; each channel can have `budget` unusable pairs.

    `known` contains the statistics of all channels. A suggested label map must be valid for all of them.
    """
    known = channels if known is None else known
    issues: list[Issue] = []
    for statistics in channels.values():
        if len(statistics.bad) > budget or (statistics.bad and not statistics.usable):
            issues += group_bad_pairs(statistics, budget, known)
        if statistics.usable and (
            issue := _exchanged_colors(statistics)
            or _unused_map(statistics, known)
            or _too_few_classes(statistics, known)
        ):
            issues.append(issue)
    with_bad = any(len(statistics.bad) > budget for statistics in known.values())
    mixed = find_mixed_depths(known, is_all=True, with_bad=with_bad)
    return ([mixed] if mixed else []) + issues + list(_conflicting_names(known))


def find_mixed_depths(known: Mapping[str, ChannelStatistics], is_all: bool, with_bad: bool = False) -> Issue | None:
    """Return the error of gray annotations whose bit depths conflict, in one channel or between two.

    `with_bad` as in `find_conflict`.
    """
    for statistics in known.values():
        if mixed := find_conflict(statistics.depths, statistics.depths, is_all, with_bad):
            return _mixed_depths(f"channel {statistics.channel} has", mixed, statistics, known)
    for statistics in known.values():
        for other in with_same_map(statistics, known):
            if other is not statistics and (mixed := find_conflict(statistics.depths, other.depths, is_all, with_bad)):
                return _mixed_depths(
                    f"channels {statistics.channel} and {other.channel} have", mixed, statistics, known
                )
    return None


def _mixed_depths(
    where: str,
    mixed: tuple[int, list[str], list[int]],
    statistics: ChannelStatistics,
    known: Mapping[str, ChannelStatistics],
) -> Issue:
    label_map, num_classes, alike = statistics.label_map, statistics.num_classes, with_same_map(statistics, known)
    classes = {value: label for value in range(256) if (label := label_map.label_of(value, num_classes)) < num_classes}
    suggestion = suggest_shades([each.depths for each in alike], classes, num_classes)
    if any(each.wrong for each in alike) or not _works(suggestion, alike):  # a map would ignore the wrong values
        suggestion = None
    return Issue("depth", *describe(mixed, where, suggestion))


def _works(suggestion: str | None, channels: list[ChannelStatistics]) -> bool:
    """Return whether, with this label map, each channel has labeled pixels, and at least two classes occur."""
    if suggestion is None:
        return False
    try:
        label_map = LabelMap(json.loads(suggestion))
        labels = [each.labels_under(label_map) - {IGNORE} for each in channels if each.opened]
    except ClientError:
        return False
    return bool(labels) and all(labels) and len(set.union(*labels)) > 1


def group_bad_pairs(
    statistics: ChannelStatistics, budget: int, known: Mapping[str, ChannelStatistics]
) -> Iterator[Issue]:
    """Yield an issue per kind of unusable pairs."""
    kinds: dict[Kind, list[UnusablePair]] = {}
    for bad in statistics.bad:
        kinds.setdefault(bad.kind, []).append(bad)
    count = len(statistics.bad)
    skipped = ""
    if count <= budget:
        skipped = f". {count} {'pair is' if count == 1 else 'pairs are'} skipped (_max_bad_records={budget})"
    for kind in sorted(kinds, key=lambda kind: -len(kinds[kind])):
        mine = kinds[kind]
        is_order = kind in ("unreadable", "size", "same") or len(statistics.wrong) > _MOST_WRONG
        is_most = statistics.is_stream and is_order and 2 * len(mine) > statistics.opened
        ending = skipped + (
            f". The cause can be the order of the attributes in the stream. If it is, {REMEDY}" if is_most else ""
        )
        advice = _advise_values(statistics, known) if kind == "label" else ""
        if kind == "colour" and statistics.unusable_colors:
            advice = _advise_colors(statistics, known)
        if len(mine) == 1:
            yield Issue(kind, mine[0].message + advice + ending)
        else:
            reason = _describe(kind, statistics, known) + advice
            details = tuple(bad.message for bad in mine)
            yield Issue(kind, f"channel {statistics.channel} has {len(mine)} {reason}{ending}", details)


def _describe(kind: Kind, statistics: ChannelStatistics, known: Mapping[str, ChannelStatistics]) -> str:
    if kind == "label":
        return (
            f"annotations with pixel values that are not valid class IDs (num_classes is {statistics.num_classes}): "
            f"{list_values(statistics, statistics.wrong)}. {INVALID_VALUE_FIX}"
        )
    if kind == "colour" and statistics.unusable_colors:
        return "annotations in colors, not class IDs"
    return _REASONS[kind]


def _advise_colors(statistics: ChannelStatistics, known: Mapping[str, ChannelStatistics]) -> str:
    """Return the fix for annotations in colors. One label map must be valid for all channels."""
    if statistics.usable and not statistics.is_color:
        return f". {statistics.usable} other annotations have class IDs. Export all of them as class IDs"
    colors: Counter[int] = Counter()
    images: Counter[int] = Counter()
    for each in known.values():
        colors.update(each.unusable_colors)
        images.update(each.unusable_color_images)
    count = sum(bad.kind == "colour" for each in known.values() for bad in each.bad)
    return f". {suggest_color_map(colors, statistics.num_classes, images, count)}"


def _exchanged_colors(statistics: ChannelStatistics) -> Issue | None:
    """Return the error of a channel whose colors match its label map only with red and blue exchanged."""
    if not statistics.exchanged or statistics.straight:
        return None
    named = statistics.label_map.colors or {}
    names = {"names": {str(label): name for label, name in statistics.label_map.names.items()}}
    entries = {exchange(code): label for code, label in named.items()}
    exchanged = json.dumps(json.loads(write_colors(entries)) | (names if statistics.label_map.names else {}))
    found = sorted({code for codes in statistics.exchanged.values() for code in codes if exchange(code) in named})
    listed = ", ".join(color_name(code) for code in found[:_LISTED_COLORS])
    expected = ", ".join(color_name(exchange(code)) for code in found[:_LISTED_COLORS])
    return Issue(
        "label map",
        f"channel {statistics.channel}: red and blue are exchanged in {len(statistics.exchanged)} annotations. They "
        f"have {listed}, but {statistics.label_map.source} contains {expected}. OpenCV writes BGR. Do one of the "
        "following: (1) Save the annotations again with cv2.imwrite(path, mask[:, :, ::-1]). (2) Put "
        f"{exchanged} into {statistics.label_map.source}",
        tuple(sorted(statistics.exchanged)),
    )


def _advise_values(statistics: ChannelStatistics, known: Mapping[str, ChannelStatistics]) -> str:
    alike = with_same_map(statistics, known)
    values = {value for each in alike for value in (*each.values, *each.unusable_values)}
    palette = _advise_palette(statistics)
    advice = advise_known_values(values, statistics.num_classes)
    if palette:
        return palette + (advice if statistics.label_map.scale == 1 else "")
    if advice and not statistics.is_color and statistics.label_map.scale == 1:
        return advice
    if suggestion := _suggest_values(statistics, known):
        return f" such as {suggestion}"
    wrong = {value for each in alike for value in each.wrong}
    if len(wrong) == 1 and statistics.label_map.scale == 1 and statistics.num_classes <= _MOST_ENTRIES:
        ignoring = json.dumps({"map": {str(label): label for label in range(statistics.num_classes)}})
        if _works(ignoring, alike):
            return f". To ignore {min(wrong)}, put {ignoring} into {FILES}"
    if len(statistics.wrong) > 2 * statistics.num_classes + _SMOOTH:
        return (
            f". There are {len(statistics.wrong)} such values. If edges are smoothed, export the annotations without "
            "anti-aliasing"
        )
    return ""


def _advise_palette(statistics: ChannelStatistics) -> str:
    """Recognize palettes of a PNG optimizer, in which the colors are the pixel values, not the indices."""
    for index, color in sorted(statistics.wrong_colors.items()):
        red, green, blue = split_code(color)
        if red == green == blue != index and (red == IGNORE or red < statistics.num_classes):
            return (
                f". If the gray values of the palettes are the pixel values (index {index} has the gray value {red}), "
                f"{WITHOUT_PALETTE}"
            )
        if color == VOC_BORDER:
            return (
                f". Index {index} is {color_name(color)}, the border color of Pascal VOC, so a program renumbered the "
                'palettes. Map the colors with {"colors": …} in a label map'
            )
    return ""


def _unused_map(statistics: ChannelStatistics, known: Mapping[str, ChannelStatistics]) -> Issue | None:
    """Return the error of a label map if none of its values occurs."""
    label_map = statistics.label_map
    named = label_map.labels if label_map.colors is None else label_map.colors
    if label_map.scale is not None or named.keys() & statistics.values.keys():
        return None
    what = "color" if label_map.colors is not None else "pixel value"
    message = (
        f"{label_map.source} contains no {what} that occurs in the annotations of channel {statistics.channel}, so all "
        f"pixels are ignored. The annotations contain {list_values(statistics)}"
    )
    inverted = label_map.inverted(statistics.num_classes)
    if inverted and _works(json.dumps(inverted), with_same_map(statistics, known)):
        message += f". {INVERTED.format(json.dumps(inverted))}"
    elif label_map.colors is not None and statistics.is_color:
        message += (
            f". {suggest_color_map({k: n for k, n in statistics.values.items() if k >= 0}, statistics.num_classes)}"
        )
    elif suggestion := _suggest_values(statistics, known):
        message += f". Put {suggestion} into {label_map.source}"
    return Issue("label map", message)


def _too_few_classes(statistics: ChannelStatistics, known: Mapping[str, ChannelStatistics]) -> Issue | None:
    """Return the error of a channel that has too few classes for training or evaluation."""
    channel, classes = statistics.channel, statistics.classes
    suggestion = _suggest_values(statistics, known)
    # without a train channel, as in local_test/evaluate.py, the other values can be classes
    is_alone = "train" not in known and statistics.label_map.content == LabelMap().content
    if len(classes) > (channel == "train") and not (is_alone and suggestion and len(classes) == 1):
        return None
    if channel != "train" and classes:
        message = (
            f"All labeled pixels of channel {channel}_annotation have one class, {classes[0]}, and the other pixel "
            "values are ignored, so an evaluation is not possible"
        )
    elif channel != "train":
        message = f"No pixel of channel {channel}_annotation is labeled, so an evaluation is not possible"
    elif classes:
        message = (
            f"All labeled pixels of channel train_annotation have one class, {classes[0]}, so the model cannot learn "
            "anything"
        )
    else:
        message = "No pixel of channel train_annotation is labeled, so the model cannot learn anything"
    message += f". The pixel values are {list_values(statistics)}"
    inverted = statistics.label_map.inverted(statistics.num_classes)
    if inverted and _works(json.dumps(inverted), with_same_map(statistics, known)):
        message += f". {INVERTED.format(json.dumps(inverted))}"
    elif suggestion:
        message += f". If each of them is a class, put {suggestion} into {FILES}"
    return Issue("classes", message)


def _conflicting_names(channels: Mapping[str, ChannelStatistics]) -> Iterator[Issue]:
    """Yield the error of label maps with different names for one class."""
    named: dict[int, tuple[str, LabelMap]] = {}
    for statistics in channels.values():
        for label, name in statistics.label_map.names.items():
            other, source = named.setdefault(label, (name, statistics.label_map))
            if other != name:
                yield Issue(
                    "names",
                    f"Class {label} is {name} in {statistics.label_map.source}, but {other} in {source.source}. Use "
                    "the same names in both",
                )
                return


def _suggest_values(statistics: ChannelStatistics, known: Mapping[str, ChannelStatistics]) -> str | None:
    """Return a label map with a class for each value of all channels, or None; 255 only with one other value."""
    alike = with_same_map(statistics, known)
    if any(each.is_color for each in alike):
        return None
    values = sorted({value for each in alike for value in (*each.values, *each.unusable_values)})
    others = [value for value in values if value != IGNORE]
    chosen = others if len(others) > 1 else values
    suggestion: str | None = json.dumps({"map": {str(label): value for label, value in enumerate(chosen)}})
    if statistics.label_map.scale == 1 and chosen == list(range(len(chosen))):  # this is the default
        return None
    if len(chosen) > statistics.num_classes:  # values of several bit depths can be the same shades
        suggestion = suggest_shades([each.depths for each in alike], {}, statistics.num_classes)
    return suggestion if _works(suggestion, alike) else None
