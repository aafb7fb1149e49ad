"""Data errors that make training impossible, with fixes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping

from container.data.audit.advice import advise_known_values
from container.data.audit.issues import Issue, list_values
from container.data.audit.statistics import ChannelStatistics, Kind, UnusablePair
from container.data.labels.color_maps import FILES, color_name, split_code
from container.data.labels.color_schemes import VOC_BORDER, exchange, suggest_color_map, write_colors
from container.data.labels.decoding import IGNORE
from container.data.labels.depths import describe, find_mixed, suggest_shades
from container.data.labels.label_maps import LabelMap
from container.data.record_layout import REMEDY
from container.errors import ClientError

_REASONS: Mapping[Kind, str] = {
    "unreadable": "pairs that cannot be read: replace or remove them",
    "same": "images that are their own annotations: put the photographs there",
    "size": "pairs of two sizes: export the annotations anew at the photographs' own size",
    "colour": "annotations whose colors cannot be read",
}
_LISTED_COLORS = 5
_MOST_ENTRIES = 48  # of a suggested map
_MOST_WRONG = 64  # pixel values, beyond which the annotations of a stream can be images
_SMOOTH = 16  # values beyond twice the classes, from which on they look like the shades of smoothed edges


def find_errors(
    channels: Mapping[str, ChannelStatistics], budget: int, known: Mapping[str, ChannelStatistics] | None = None
) -> list[Issue]:
    """List what makes training senseless, the worst first; each channel may have `budget` unusable pairs.

    `known` are the findings on all channels, from which label maps are suggested: one map has to fit all of them.
    """
    known = channels if known is None else known
    faults: list[Issue] = []
    for findings in channels.values():
        if len(findings.bad) > budget or (findings.bad and not findings.usable):
            faults += group_bad_pairs(findings, budget, known)
        if findings.usable and (
            fault := _exchanged_colors(findings) or _unused_map(findings, known) or _too_few_classes(findings, known)
        ):
            faults.append(fault)
    with_bad = any(len(findings.bad) > budget for findings in known.values())
    mixed = find_mixed_depths(known, is_all=True, with_bad=with_bad)
    return ([mixed] if mixed else []) + faults + list(_contradicting_names(known))


def find_mixed_depths(known: Mapping[str, ChannelStatistics], is_all: bool, with_bad: bool = False) -> Issue | None:
    """Return the error of gray annotations whose bit depths contradict each other, in a channel or in two.

    `with_bad` as in `find_mixed`.
    """
    for findings in known.values():
        if mixed := find_mixed(findings.depths, findings.depths, is_all, with_bad):
            return _mixed_depths(f"channel {findings.channel} has", mixed, findings, known)
    for findings in known.values():
        for other in _alike(findings, known):
            if other is not findings and (mixed := find_mixed(findings.depths, other.depths, is_all, with_bad)):
                return _mixed_depths(f"channels {findings.channel} and {other.channel} have", mixed, findings, known)
    return None


def _mixed_depths(
    where: str,
    mixed: tuple[int, list[str], list[int]],
    findings: ChannelStatistics,
    known: Mapping[str, ChannelStatistics],
) -> Issue:
    label_map, num_classes, alike = findings.label_map, findings.num_classes, _alike(findings, known)
    classes = {value: label for value in range(256) if (label := label_map.label_of(value, num_classes)) < num_classes}
    suggestion = suggest_shades([each.depths for each in alike], classes, num_classes)
    if any(each.wrong for each in alike) or not _works(suggestion, alike):  # a map would ignore the wrong values
        suggestion = None
    return Issue("depth", *describe(mixed, where, suggestion))


def _alike(findings: ChannelStatistics, known: Mapping[str, ChannelStatistics]) -> list[ChannelStatistics]:
    """Return the findings on all channels that the same label map reads."""
    return [each for each in known.values() if each.label_map.content == findings.label_map.content]


def _works(suggestion: str | None, channels: list[ChannelStatistics]) -> bool:
    """Return whether a label map is one under which each channel has labeled pixels, and two classes occur."""
    if suggestion is None:
        return False
    try:
        label_map = LabelMap(json.loads(suggestion))
        labels = [each.labels_under(label_map) - {IGNORE} for each in channels if each.opened]
    except ClientError:
        return False
    return bool(labels) and all(labels) and len(set.union(*labels)) > 1


def group_bad_pairs(
    findings: ChannelStatistics, budget: int, known: Mapping[str, ChannelStatistics]
) -> Iterator[Issue]:
    """Group the unusable pairs by what is wrong with them."""
    kinds: dict[Kind, list[UnusablePair]] = {}
    for bad in findings.bad:
        kinds.setdefault(bad.kind, []).append(bad)
    count = len(findings.bad)
    skipped = (
        f" ({count} {'is' if count == 1 else 'are'} skipped, _max_bad_records={budget})" if count <= budget else ""
    )
    for kind in sorted(kinds, key=lambda kind: -len(kinds[kind])):
        mine = kinds[kind]
        is_order = kind in ("unreadable", "size", "same") or len(findings.wrong) > _MOST_WRONG
        is_most = findings.is_stream and is_order and 2 * len(mine) > findings.opened
        ending = skipped + (f". In a stream, this can be the order of the attributes: {REMEDY}" if is_most else "")
        advice = _advise_values(findings, known) if kind == "label" else ""
        if kind == "colour" and findings.bad_colors:
            advice = _advise_colors(findings, known)
        if len(mine) == 1:
            yield Issue(kind, mine[0].message + advice + ending)
        else:
            reason = _describe(kind, findings, known) + advice
            details = tuple(bad.message for bad in mine)
            yield Issue(kind, f"channel {findings.channel} has {len(mine)} {reason}{ending}", details)


def _describe(kind: Kind, findings: ChannelStatistics, known: Mapping[str, ChannelStatistics]) -> str:
    if kind == "label":
        return (
            f"annotations with pixel values that are no class (num_classes is {findings.num_classes}): "
            f"{list_values(findings, findings.wrong)}; raise num_classes, mark such pixels 255 (ignore), or give a "
            "label map"
        )
    if kind == "colour" and findings.bad_colors:
        return "annotations in colors, not class IDs"
    return _REASONS[kind]


def _advise_colors(findings: ChannelStatistics, known: Mapping[str, ChannelStatistics]) -> str:
    """Write what to do about the colors of all channels: one label map has to fit all of them."""
    if findings.usable and not findings.is_color:
        return f". {findings.usable} other annotations have class IDs. Export all of them as class IDs"
    colors: Counter[int] = Counter()
    images: Counter[int] = Counter()
    for each in known.values():
        colors.update(each.bad_colors)
        images.update(each.bad_color_images)
    count = sum(bad.kind == "colour" for each in known.values() for bad in each.bad)
    return f". {suggest_color_map(colors, findings.num_classes, images, count)}"


def _exchanged_colors(findings: ChannelStatistics) -> Issue | None:
    """Tell of a channel whose colors fit its label map only with red and blue exchanged."""
    if not findings.exchanged or findings.straight:
        return None
    named = findings.label_map.colors or {}
    names = {"names": {str(label): name for label, name in findings.label_map.names.items()}}
    entries = {exchange(code): label for code, label in named.items()}
    exchanged = json.dumps(json.loads(write_colors(entries)) | (names if findings.label_map.names else {}))
    found = sorted({code for codes in findings.exchanged.values() for code in codes if exchange(code) in named})
    listed = ", ".join(color_name(code) for code in found[:_LISTED_COLORS])
    expected = ", ".join(color_name(exchange(code)) for code in found[:_LISTED_COLORS])
    return Issue(
        "label map",
        f"channel {findings.channel}: red and blue are exchanged in {len(findings.exchanged)} annotations. They have "
        f"{listed}, but {findings.label_map.source} names {expected}. "
        "OpenCV writes BGR: save the annotations again with cv2.imwrite(path, mask[:, :, ::-1]), or write "
        f"{exchanged} into {findings.label_map.source}",
        tuple(sorted(findings.exchanged)),
    )


def _advise_values(findings: ChannelStatistics, known: Mapping[str, ChannelStatistics]) -> str:
    alike = [each for each in known.values() if each.label_map.content == findings.label_map.content]
    values = {value for each in alike for value in (*each.values, *each.bad_values)}
    palette = _advise_palette(findings)
    advice = advise_known_values(values, findings.num_classes)
    if palette:
        return palette + (advice if findings.label_map.scale == 1 else "")
    if advice and not findings.is_color and findings.label_map.scale == 1:
        return advice
    if suggestion := _suggest_values(findings, known):
        return f" such as {suggestion}"
    wrong = {value for each in alike for value in each.wrong}
    if len(wrong) == 1 and findings.label_map.scale == 1 and findings.num_classes <= _MOST_ENTRIES:
        ignoring = json.dumps({"map": {str(label): label for label in range(findings.num_classes)}})
        if _works(ignoring, alike):
            return f"; to ignore {min(wrong)}, put {ignoring} into {FILES}"
    if len(findings.wrong) > 2 * findings.num_classes + _SMOOTH:
        return (
            f"; with {len(findings.wrong)} such values, the edges may have been smoothed: export the annotations "
            "without anti-aliasing"
        )
    return ""


def _advise_palette(findings: ChannelStatistics) -> str:
    """Recognize the palettes of an optimizer, whose colors and not their indices are the pixel values."""
    for index, color in sorted(findings.wrong_colors.items()):
        red, green, blue = split_code(color)
        if red == green == blue != index and (red == IGNORE or red < findings.num_classes):
            return (
                f"; if the grays of the palettes are the pixel values (index {index} is the gray {red}), save the "
                "annotations without a palette: Image.open(path).convert('L').save(path) in Python with Pillow"
            )
        if color == VOC_BORDER:
            return (
                f"; index {index} is {color_name(color)}, the border in Pascal VOC, because a program renumbered the "
                'palettes: map the colors by {"colors": …} in a label map'
            )
    return ""


def _unused_map(findings: ChannelStatistics, known: Mapping[str, ChannelStatistics]) -> Issue | None:
    """Tell of a label map none of whose values occurs."""
    label_map = findings.label_map
    named = label_map.labels if label_map.colors is None else label_map.colors
    if label_map.scale is not None or named.keys() & findings.values.keys():
        return None
    what = "color" if label_map.colors is not None else "pixel value"
    message = (
        f"{label_map.source} names no {what} that occurs in the annotations of channel {findings.channel}: all would "
        f"be ignored; there are {list_values(findings)}"
    )
    turned = label_map.turned_round(findings.num_classes)
    if turned and _works(json.dumps(turned), _alike(findings, known)):
        message += f"; keys are labels and values are pixels: turned round it fits, {json.dumps(turned)}"
    elif label_map.colors is not None and findings.is_color:
        message += f". {suggest_color_map({k: n for k, n in findings.values.items() if k >= 0}, findings.num_classes)}"
    elif suggestion := _suggest_values(findings, known):
        message += f"; write {suggestion}"
    return Issue("label map", message)


def _too_few_classes(findings: ChannelStatistics, known: Mapping[str, ChannelStatistics]) -> Issue | None:
    """Tell of a channel in which there is nothing to learn, or nothing to score."""
    channel, classes = findings.channel, findings.classes
    suggestion = _suggest_values(findings, known)
    # an evaluation has no channel train that shows whether other values are classes
    is_alone = "train" not in known and findings.label_map.content == LabelMap().content
    if len(classes) > (channel == "train") and not (is_alone and suggestion and len(classes) == 1):
        return None
    if channel != "train" and classes:
        message = (
            f"all labeled pixels of channel {channel}_annotation are of one class, {classes[0]}, and the other pixel "
            "values are ignored: nothing could be measured"
        )
    elif channel != "train":
        message = f"no pixel of channel {channel}_annotation is labeled, so nothing could be scored"
    elif classes:
        message = (
            f"all labeled pixels of channel train_annotation are of one class, {classes[0]}: there is nothing to "
            "learn, and the score would be perfect"
        )
    else:
        message = "no pixel of channel train_annotation is labeled: there is nothing to learn"
    message += f"; the pixel values are {list_values(findings)}"
    turned = findings.label_map.turned_round(findings.num_classes)
    if turned and _works(json.dumps(turned), _alike(findings, known)):
        message += f"; keys are labels and values are pixels: turned round the label map fits, {json.dumps(turned)}"
    elif suggestion:
        message += f"; if each of them is a class, put {suggestion} into {FILES}"
    return Issue("classes", message)


def _contradicting_names(channels: Mapping[str, ChannelStatistics]) -> Iterator[Issue]:
    """Tell of label maps that call one class by two names."""
    named: dict[int, tuple[str, LabelMap]] = {}
    for findings in channels.values():
        for label, name in findings.label_map.names.items():
            other, source = named.setdefault(label, (name, findings.label_map))
            if other != name:
                yield Issue(
                    "names",
                    f"{findings.label_map.source} calls class {label} {name}, {source.source} calls it {other}: write "
                    "the same classes into both",
                )
                return


def _suggest_values(findings: ChannelStatistics, known: Mapping[str, ChannelStatistics]) -> str | None:
    """Write the map that makes a class of each value of all channels, of 255 only where there is but one other."""
    alike = _alike(findings, known)
    if any(each.is_color for each in alike):
        return None
    values = sorted({value for each in alike for value in (*each.values, *each.bad_values)})
    others = [value for value in values if value != IGNORE]
    chosen = others if len(others) > 1 else values
    suggestion: str | None = json.dumps({"map": {str(label): value for label, value in enumerate(chosen)}})
    if findings.label_map.scale == 1 and chosen == list(range(len(chosen))):  # which is how they are read already
        return None
    if len(chosen) > findings.num_classes:  # the numbers of several depths may be the same shades
        suggestion = suggest_shades([each.depths for each in alike], {}, findings.num_classes)
    return suggestion if _works(suggestion, alike) else None
