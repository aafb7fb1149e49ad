"""Layout of a Pipe mode stream, decided from its first records.

The container does not receive AttributeNames. A wrong list, or an S3 prefix instead of a manifest, shows only in the
records: their order by kind (JPEG, PNG, JSON, other), and how well PNGs fit the label map.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import statistics
from collections.abc import Sequence

import numpy as np

from container.codecs.images import Annotation, DecodeError, decode_annotation, describe, read_header
from container.data.labels.color_maps import ColorMap, color_codes, read_color_map
from container.data.labels.label_maps import LabelMap
from container.errors import ClientError

LOG = logging.getLogger(__name__)

OPENING = 12  # records: a whole number of samples of 2, 3, or 4 records
REMEDY = 'list image and annotation in AttributeNames, as in ["source-ref", "<label>-ref"]'

_MANIFEST = "Stream an augmented manifest (S3DataType AugmentedManifestFile, RecordWrapperType RecordIO), and " + REMEDY
_ATTRIBUTES = (
    "In AttributeNames, list the image, then the annotation. Only the metadata of the annotation can be a third "
    'attribute, as in ["source-ref", "<label>-ref", "<label>-ref-metadata"]'
)
_JPEG, _PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
_IM2REC_HEADER = 24  # bytes: flag, label, and two ids, before plus the number of labels that flag specifies

_MAX_PIXELS = 2**26  # larger images are not decoded here
_SAMPLED = 2**18  # pixels of one image that are compared
_MOST_GRAYS, _MOST_COLORS, _MOST_DEEP = 64, 256, 1024  # values of an annotation in 8 bits, RGB, and 16 bits
_ROUGH = 0.2  # share of the pixels that differ from their neighbor: an image has more, an annotation less
_FIT, _NOT_WORSE = 0.9, 0.8  # shares of pixels whose values the label map explains
_FLAT = 0.9  # share of the steps between neighbors that are 1: a dark image has as many, an annotation fewer
_GRADIENT = 8  # values, from which on such steps are a gradient
_SHAPES = 16  # steps in a row of pixels: a page of text in black and white has more, an annotation fewer
_DARK = 63  # images with no brighter gray are class IDs


@dataclasses.dataclass(frozen=True)
class Layout:
    """How many records a sample has, and which of them is the metadata."""

    period: int = 2
    metadata: int | None = None


@dataclasses.dataclass(frozen=True)
class _Content:
    """Properties of a PNG: whether it looks like a photo, its share of explained pixels, and its distinct values.

    `steps` is the mean number of pixels in a row that differ from their neighbor.
    """

    is_color: bool
    palette: bytes | None
    levels: int
    is_rough: bool
    is_photo: bool
    is_gradient: bool
    steps: float
    fit: float
    values: frozenset[int]


def find_layout(opening: Sequence[bytes], channel: str, label_map: LabelMap, num_classes: int) -> Layout:
    """Return the layout of a stream that begins with the records `opening`, at most OPENING of them.

    Raises ClientError if the records show that the stream does not alternate images and annotations. Single records
    that are damaged do not count: the samples that they belong to are reported by name.
    """
    kinds = "".join(map(_kind, opening))
    unit = _unit(kinds)
    if unit == "T":
        raise ClientError(f"channel {channel}: the records are not images, but {_describe(opening[0])}. {_MANIFEST}")
    if unit == "D":
        raise ClientError(f"channel {channel}: the records are JSON: the stream is the manifest itself. {_MANIFEST}")
    if unit and unit != "I" and sorted(unit) != ["D", "I", "I"]:
        raise _wrong_attributes(channel, opening[: len(unit)])
    layout = _best_layout(kinds)
    assess = functools.partial(_judge, label_map=label_map, num_classes=num_classes)
    _check_pairs(opening, kinds, layout, channel, assess)
    return layout


def _kind(record: bytes) -> str:
    """Return I for an image, D for a JSON object, T for anything else."""
    if record.startswith((_JPEG, _PNG)):
        return "I"
    return "D" if record.lstrip()[:1] == b"{" else "T"


def _unit(kinds: str) -> str:
    """Return the kinds of one sample's records if all samples have the same, or an empty text.

    Bad records can look like a rare attribute: these need more samples.
    """
    for period in range(1, 5):
        needed = period if period == 1 else (3 if period == 4 and "D" not in kinds else 2) * period
        if len(kinds) >= needed and all(kind == kinds[place % period] for place, kind in enumerate(kinds)):
            return kinds[:period]
    return ""


def _best_layout(kinds: str) -> Layout:
    """Return the layout that fits most of the records."""

    def fit(layout: Layout) -> int:
        return sum((kind == "D") == (place % layout.period == layout.metadata) for place, kind in enumerate(kinds))

    return max([Layout(), *(Layout(3, place) for place in range(3))], key=fit)


def _check_pairs(
    opening: Sequence[bytes], kinds: str, layout: Layout, channel: str, assess: functools.partial[_Content | None]
) -> None:
    """Raise ClientError if the images and annotations of the first samples are not what they must be."""
    period = layout.period
    samples = [opening[start : start + period] for start in range(0, len(opening) - period + 1, period)]
    pairs: list[tuple[bytes, bytes]] = []
    contents: list[tuple[_Content | None, _Content | None]] = []
    for sample in samples:
        images = [record for place, record in enumerate(sample) if place != layout.metadata]
        if all(_kind(record) == "I" for record in images):
            color_map = _color_map(sample, layout)
            pairs.append((images[0], images[1]))
            contents.append((assess(images[0], color_map), assess(images[1], color_map)))
    if not pairs:
        return
    if layout.metadata is None and "T" not in kinds:
        _check_period(opening, [content for pair in contents for content in pair], channel)
    jpegs = [second.startswith(_JPEG) for _, second in pairs]
    if all(jpegs):
        is_swapped = not any(first.startswith(_JPEG) for first, _ in pairs)
        raise _no_annotations(channel, layout, "is a JPEG", is_swapped)
    _check_contents(pairs, contents, channel, layout)


def _check_period(opening: Sequence[bytes], contents: Sequence[_Content | None], channel: str) -> None:
    """Raise ClientError if the records are images whose kinds repeat after 3 or 4 records, not after 2."""
    kinds = [
        "J" if record.startswith(_JPEG) else "X" if content is None else "F" if content.is_photo else "M"
        for record, content in zip(opening, contents, strict=False)
    ]
    if "X" in kinds or (set(kinds[1::2]) == {"M"} and "M" not in kinds[::2]):
        return
    if all(kind == kinds[place % 2] for place, kind in enumerate(kinds)):
        return
    for period, needed in ((3, 6), (4, 12)):
        if len(kinds) >= needed and all(kind == kinds[place % period] for place, kind in enumerate(kinds)):
            raise _wrong_attributes(channel, opening[:period])


def _check_contents(
    pairs: Sequence[tuple[bytes, bytes]],
    contents: Sequence[tuple[_Content | None, _Content | None]],
    channel: str,
    layout: Layout,
) -> None:
    """Raise ClientError if annotations look like images, or images like annotations."""
    seconds = [second for _, second in contents if second]
    firsts = [first for first, _ in contents if first]
    photos = [second for second in seconds if second.is_photo]
    if seconds and 4 * len(photos) >= 3 * len(seconds):
        fit = statistics.median(second.fit for second in seconds)
        image_fit = statistics.median(first.fit if first else 0.0 for first, _ in contents)
        if fit < _FIT and image_fit >= _NOT_WORSE * fit - (1 - _FIT) / 2:
            is_swapped = len(firsts) == len(pairs) and not any(first.is_photo for first in firsts)
            count = len(photos[0].values)
            seen = f"has {count} {'or more ' * (count >= _SAMPLED)}different pixel values, like a camera image"
            raise _no_annotations(channel, layout, seen, is_swapped, is_png=True)
    if len(firsts) < len(pairs) or len(seconds) < len(pairs) or len(pairs) < 2:
        return
    if all(first == second for first, second in pairs):
        raise _no_images(channel, "are the same as their annotations")
    values = frozenset.union(*(first.values for first in firsts))
    if len(values) < 2 or any(first.is_rough for first in firsts) or any(second.is_photo for second in seconds):
        return
    shown = _list_values(firsts[0], values)
    fits = all(content.fit == 1 for content in (*firsts, *seconds))
    if (fits or values == frozenset.union(*(second.values for second in seconds))) and _are_annotations(
        firsts, seconds, values, fits
    ):
        raise _no_images(channel, f"look like annotations: their only pixel values are {shown}")
    if fits:
        LOG.warning(
            "channel %s: the first images have only the pixel values %s, which the label map names, too. If they are "
            "annotations, the stream contains no images. %s",
            channel,
            shown,
            _MANIFEST,
        )


def _list_values(content: _Content, values: frozenset[int]) -> str:
    return ", ".join(f"#{value:06x}" if content.is_color else str(value) for value in sorted(values)[:5])


def _are_annotations(
    images: Sequence[_Content], annotations: Sequence[_Content], values: frozenset[int], fits: bool
) -> bool:
    """Return whether images cannot be camera images or scans.

    Their `values` are few. Either the label map explains all of them, or they are also those of the annotations.
    """
    if any(image.is_gradient for image in images):
        return False
    if all(image.is_color for image in images):
        if values <= {0, 0xFFFFFF} and any(image.steps > _SHAPES for image in images):
            return False
        return fits or all(annotation.is_color for annotation in annotations)
    if any(image.is_color for image in images):
        return False
    if any(image.palette is not None for image in images):
        palettes = [(image.palette, annotation.palette) for image, annotation in zip(images, annotations, strict=True)]
        return all(palette is not None and palette == other for palette, other in palettes)
    brightest = max(values - {255}, default=0)
    is_dark = 0 < brightest <= _DARK or (brightest > 0 and not fits)
    return is_dark and all(image.levels == 256 and image.palette is None for image in (*images, *annotations))


def _judge(record: bytes, color_map: ColorMap | None, *, label_map: LabelMap, num_classes: int) -> _Content | None:
    """Compare a PNG with the label map; None for a JPEG, and what cannot be decoded."""
    try:
        header = read_header(record)
        if header.format != "PNG" or header.width * header.height > _MAX_PIXELS:
            return None
        annotation = decode_annotation(record)
    except DecodeError:
        return None
    fit = _fit(annotation, color_map, label_map, num_classes)
    pixels = color_codes(annotation.colors) if annotation.colors is not None else annotation.pixels
    assert pixels is not None
    rows = pixels[:: max(1, pixels.size // _SAMPLED)]
    values = frozenset(np.unique(rows).tolist())
    is_gray = annotation.colors is None or all(value == (value & 255) * 0x010101 for value in values)
    most = _MOST_GRAYS if is_gray else _MOST_COLORS
    if annotation.pixels is not None and annotation.pixels.dtype != np.uint8:
        most = _MOST_DEEP
    roughness = float((rows[:, 1:] != rows[:, :-1]).mean()) if rows.shape[1] > 1 else 0.0
    palette = None if annotation.palette is None else annotation.palette.tobytes()
    is_rough = roughness > _ROUGH
    is_photo = is_rough and len(values) > most
    differences = np.abs(np.diff(rows.astype(np.int64)))
    are_small = np.count_nonzero(differences == 1) >= _FLAT * np.count_nonzero(differences)
    is_gradient = palette is None and annotation.colors is None and len(values) >= _GRADIENT and bool(are_small)
    steps = roughness * (rows.shape[1] - 1)
    is_color = annotation.colors is not None
    return _Content(is_color, palette, annotation.levels, is_rough, is_photo, is_gradient, steps, fit, values)


def _fit(annotation: Annotation, color_map: ColorMap | None, label_map: LabelMap, num_classes: int) -> float:
    """Return the share of the pixels whose values the label map explains."""
    if annotation.colors is not None and label_map.colors is None and color_map is None:
        return 0.0
    try:
        reading = label_map.interpret(annotation, num_classes, color_map)
    except ClientError:
        return 0.0
    explained = ~reading.unnamed & ~reading.wrong
    if label_map.scale not in (None, 1) and not reading.is_color:
        explained &= (reading.values % label_map.scale == 0) | (reading.values == 255)
    return float(reading.counts[explained].sum()) / max(1, int(reading.counts.sum()))


def _color_map(sample: Sequence[bytes], layout: Layout) -> ColorMap | None:
    if layout.metadata is None:
        return None
    try:
        return read_color_map(sample[layout.metadata], "")
    except ClientError:  # reported with its record when the sample is read
        return None


def _describe(record: bytes) -> str:
    """Name a record's kind."""
    labels = int.from_bytes(record[:4], "little")
    if record.startswith((_JPEG, _PNG), _IM2REC_HEADER + 4 * min(labels, 1024)):
        return "records of the MXNet tool im2rec (a header before each image)"
    return describe(record).split(": ")[0]


def _wrong_attributes(channel: str, sample: Sequence[bytes]) -> ClientError:
    listed = ", ".join(f"record {number} is {_describe(record)}" for number, record in enumerate(sample, 1))
    return ClientError(
        f"channel {channel}: each sample of the stream has {len(sample)} records: {listed}. {_ATTRIBUTES}"
    )


def _no_annotations(channel: str, layout: Layout, seen: str, is_swapped: bool, is_png: bool = False) -> ClientError:
    place = next(number for number in (2, 3) if number - 1 != layout.metadata)
    message = f"channel {channel}: the annotation, record {place}, {seen}."
    if is_swapped:
        return ClientError(f"{message} The image and the annotation are exchanged: {REMEDY}")
    message += f" If the stream is an S3 prefix of images, it has no annotations. {_MANIFEST}"
    if is_png:
        message += (
            ". If the record is an annotation with smoothed edges, export the annotations again as class IDs without "
            "anti-aliasing"
        )
    return ClientError(message)


def _no_images(channel: str, seen: str) -> ClientError:
    return ClientError(
        f"channel {channel}: the images, records 1 and 3, {seen}. If the stream is an S3 prefix of annotations, or "
        f"AttributeNames lists annotations only, it has no images. {_MANIFEST}"
    )
