"""Meaning of annotation colors without a label map: class IDs, instance IDs, a palette, or smoothed edges."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence

from container.codecs.masks import voc_palette
from container.data.labels.color_maps import ALPHA, FILES, TRANSPARENT, Color, color_code, color_name, split_code

_SPARE = 16  # colors beyond the classes that a suggestion lists as ignored
_SMOOTH = 4  # colors per class; with more, edges are probably smoothed
_VOC_CLASSES, VOC_BORDER = 21, 0xE0E0C0
_COMMON = {0x000000, 0xFFFFFF, VOC_BORDER}  # colors that occur in many instance masks
_FEW = 6  # colors; fewer do not show whether they are instances
_REGION_PIXELS = 16  # smaller regions are noise at an edge
_MOST_SEGMENTS = 256  # of one annotation
_CHANNELS = ("red", "green", "blue")
_ADE_STEP, _ADE_LIMIT = 10, 130  # the red channel of ADE20K has multiples of 10, for 3,688 classes


def suggest_color_map(
    colors: Mapping[int, int], num_classes: int, images: Mapping[int, int] | None = None, count: int = 1
) -> str:
    """Return the fix for `count` annotations in colors without a label map, as sentences.

    `colors` contains the pixel counts by color code, and `images` the number of annotations with the color. The most
    frequent colors of each annotation are sufficient.
    """
    opaque = {code: pixels for code, pixels in colors.items() if code < TRANSPARENT}
    if any(code >= ALPHA for code in colors):
        return (
            "The alpha channel contains the class IDs. Save it as a grayscale PNG: "
            'Image.open(path).getchannel("A").save(path) in Python with Pillow'
        )
    if colors and not opaque:
        return (
            "All pixels are transparent. If the colors are right, save the annotations without an alpha channel: "
            'Image.open(path).convert("RGB").save(path) in Python with Pillow'
        )
    return (
        _find_instances(opaque, num_classes, images or {}, count)
        or _find_ids(opaque, num_classes, TRANSPARENT in colors)
        or _find_smooth_edges(opaque, num_classes)
        or _number_colors(opaque, num_classes, TRANSPARENT in colors)
    )


def _find_instances(colors: Mapping[int, int], num_classes: int, images: Mapping[int, int], count: int) -> str:
    """Recognize the colors of instances, which a label map cannot map to classes."""
    codes = [code for code in colors if code not in _COMMON]
    parts = [split_code(code) for code in codes]
    if len(codes) < min(_FEW, num_classes + 1):
        return ""
    reds = {part[0] for part in parts} - {0}
    classes = {part[:2] for part in parts}
    is_ade = len(reds) > 1 and max(reds) <= _ADE_LIMIT and not any(red % _ADE_STEP for red in reds)
    if is_ade and len(classes) < len(codes):
        return (
            "The colors are those of the full ADE20K data set: the class index is red / 10 × 256 + green, and blue is "
            "the instance. Save annotations of class IDs from 0 to num_classes - 1 that you compute from red and green"
        )
    are_regions = statistics.median(colors[code] / images.get(code, 1) for code in codes) >= _REGION_PIXELS
    for channel, name in enumerate(_CHANNELS):
        ids = {part[channel] for part in parts}
        is_class = len(ids) > 1 and 2 * len(ids) <= len(codes) and max(ids - {255}, default=0) <= num_classes
        if is_class and are_regions and _are_ids(ids, num_classes):
            return (
                f"The {name} channel contains class IDs and the other channels contain instance IDs. Save the {name} "
                f'channel as a grayscale PNG: Image.open(path).getchannel("{name[0].upper()}").save(path) in Python '
                f"with Pillow{_raise_classes(ids, num_classes)}"
            )
    alone = [code for code in codes if images.get(code) == 1]
    is_certain = count > 1
    if len(codes) <= num_classes:  # as classes can have
        is_certain = count > 3 and len(alone) == len(codes) >= 3 * count
    is_smooth = len(colors) > _MOST_SEGMENTS * count
    pixels = sum(colors[code] for code in alone)
    if len(alone) < _FEW or not is_certain or is_smooth or 2 * pixels < sum(colors[code] for code in codes):
        return ""
    return (
        f"Almost no two annotations share a color ({len(codes)} colors): the colors are instance or segment IDs, as in "
        "COCO panoptic, not classes. Save annotations of class IDs: look up the category of each segment ID (in COCO: "
        "red + 256 × green + 65536 × blue) in the JSON file of the data set"
    )


def _find_ids(colors: Mapping[int, int], num_classes: int, has_transparent: bool) -> str:
    """Recognize class IDs in one channel, in all three, or in the colors of Pascal VOC."""
    parts = [split_code(code) for code in colors]
    constant = [{part[channel] for part in parts} == {0} for channel in range(3)]
    is_gray = all(len(set(part)) == 1 for part in parts)
    if is_gray or constant.count(False) == 1:
        channel = 0 if is_gray else constant.index(False)
        ids = {code: part[channel] for code, part in zip(colors, parts, strict=True)}
        if _are_ids(set(ids.values()), num_classes):
            where = (
                "All three channels contain the same class IDs"
                if is_gray
                else (f"The {_CHANNELS[channel]} channel contains class IDs")
            )
            raised = _raise_classes(set(ids.values()), num_classes)
            return f"{where}. Put {_write(dict(sorted(ids.items())), has_transparent)} into {FILES}{raised}"
    voc = {color_code(color): index for index, color in enumerate(_voc())}
    is_voc = colors and num_classes >= _VOC_CLASSES - 1 and all(code in voc or code == VOC_BORDER for code in colors)
    if is_voc and max(voc.get(code, 0) for code in colors) < num_classes:
        entries = {code: voc.get(code, 255) for code in sorted(colors, key=lambda code: voc.get(code, 255))}
        return f"The colors are those of Pascal VOC. Put {_write(entries, has_transparent)} into {FILES}"
    return ""


def _find_smooth_edges(colors: Mapping[int, int], num_classes: int) -> str:
    """Recognize smoothed edges or JPEG artifacts, which have more colors than a mask."""
    if len(colors) <= _SMOOTH * num_classes + _SPARE:
        return ""
    frequent = _by_frequency(colors)[:num_classes]
    advice = (
        f"There are {len(colors)} or more colors for {num_classes} classes. If the edges are smoothed, or the mask was "
        "a JPEG, export it again as a PNG of class IDs without anti-aliasing"
    )
    if 2 * sum(colors[code] for code in frequent) < sum(colors.values()):
        return advice
    entries = {code: label for label, code in enumerate(frequent)}
    return f"{advice}. To ignore the pixels of all other colors, put {_write(entries, False)} into {FILES}"


def _number_colors(colors: Mapping[int, int], num_classes: int, has_transparent: bool) -> str:
    """Suggest class IDs in the order of the frequency of the colors."""
    frequent = _by_frequency(colors)
    if has_transparent and (len(frequent) == 1 or len(frequent) == num_classes - 1):  # transparent pixels are a class
        entries = {TRANSPARENT: 0, **{code: label for label, code in enumerate(frequent, 1)}}
        return f"Put {write_colors(entries)}, with the IDs that you mean, into {FILES}"
    classes = [code for code in frequent if code != VOC_BORDER or len(frequent) <= num_classes]
    listed = (classes + [code for code in frequent if code not in classes])[: num_classes + _SPARE]
    entries = {code: label if label < num_classes and code in classes else 255 for label, code in enumerate(listed)}
    advice = f"Put {_write(entries, has_transparent)}, with the IDs that you mean, into {FILES}"
    if len(frequent) > num_classes:
        advice += f". num_classes is {num_classes}, so the rarest of the {len(frequent)} colors are ignored (255)"
    return advice


def find_exchanged(unknown: Mapping[int, int], known: Mapping[int, int], named: Mapping[int, int]) -> bool:
    """Return whether the colors of an annotation fit a label map better with red and blue exchanged.

    `unknown` contains the pixel counts of colors that are not in the map, and `known` those of colors in the map.
    `named` contains the labels of the map by color.
    """
    unknown = {code: pixels for code, pixels in unknown.items() if exchange(code) != code}
    fitting = sum(pixels for code, pixels in unknown.items() if exchange(code) in named)
    return 0 < 0.9 * sum(unknown.values()) <= fitting and all(exchange(code) in named for code in known)


def exchange(code: int) -> int:
    """Exchange red and blue."""
    red, green, blue = split_code(code)
    return code if code >= TRANSPARENT else color_code((blue, green, red))


def write_colors(entries: Mapping[int, int]) -> str:
    """Return the JSON of a label map for labels by color code."""
    return json.dumps({"colors": {color_name(code): label for code, label in entries.items()}})


def _write(entries: Mapping[int, int], has_transparent: bool) -> str:
    return write_colors({**({TRANSPARENT: 255} if has_transparent else {}), **entries}) + (
        " (255 ignores the transparent pixels)" if has_transparent else ""
    )


def _by_frequency(colors: Mapping[int, int]) -> list[int]:
    return sorted(colors, key=lambda code: (-colors[code], code))


def _are_ids(values: set[int], num_classes: int) -> bool:
    """Return whether the values of a channel can be class IDs: small, without a common step, except for 255."""
    ids = values - {0, 255}
    limit = num_classes + _SPARE
    return bool(ids) and len(values) > 1 and max(ids) < limit and (max(ids) < 32 or math.gcd(*ids) == 1)


def _raise_classes(ids: set[int], num_classes: int) -> str:
    needed = max(ids - {255}) + 1
    return f". num_classes is {num_classes}: set it to {needed}" if needed > num_classes else ""


def _voc() -> Sequence[Color]:
    return [(int(red), int(green), int(blue)) for red, green, blue in voc_palette()[:_VOC_CLASSES]]
