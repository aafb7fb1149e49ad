"""Warnings about the data, with fixes."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from container.arrays import Array
from container.codecs.images_16_bit import scale_table
from container.data.audit.duplicates import find_duplicates
from container.data.audit.errors import group_bad_pairs
from container.data.audit.issues import LISTED, Issue, list_values, percent
from container.data.audit.palettes import find_palette_conflicts
from container.data.audit.scale import SCALE, find_scale, find_small
from container.data.audit.statistics import ChannelStatistics
from container.data.labels.color_maps import color_name
from container.data.labels.color_schemes import exchange
from container.data.labels.decoding import IGNORE
from container.errors import shorten_list
from container.hyperparameters import Hyperparameters
from container.image_range import Range

_RARE = 0.001  # of the labeled pixels
_NOTABLE = 1e-4  # of the samples of 16-bit images
_FEW_LEVELS = 128  # of the 256 that 8 bits have
_MUCH_CLIPPED = 0.01  # of the samples of 16-bit images
_FEW_IMAGES = 0.1  # of the 16-bit images
_SMOOTH = 16  # values that are not in the label map; with more, edges are probably smoothed
_SMOOTH_EDGES = "If edges were smoothed, export the annotations again without anti-aliasing, as PNG"


def find_warnings(
    channels: Mapping[str, ChannelStatistics],
    names: Mapping[int, str],
    job: Hyperparameters,
    stop: threading.Event,
    is_all: bool = True,
) -> list[Issue]:
    """Return the warnings about the data; `is_all` specifies whether `channels` contains all channels of the job."""
    found: list[Issue] = []
    trained = channels.get("train") or next(iter(channels.values()), None)  # local_test/evaluate.py has one channel
    scale = [*find_scale(trained, job)] if trained else []
    for statistics in channels.values():
        if 0 < len(statistics.bad) <= job.max_bad_records and statistics.usable:
            found += group_bad_pairs(statistics, job.max_bad_records, channels)
        found += _find_label_issues(statistics, names)
        found += _find_image_issues(statistics)
        found += _mixed_bits(statistics)
        is_scaled = statistics is trained and any(
            issue.kind == SCALE for issue in scale
        )  # this warning suggests a crop_size
        if "train" in channels and not is_scaled:
            found += find_small(statistics, job)
    found += [issue for issue in scale if issue.kind == SCALE or "train" in channels]
    if "train" in channels:
        found += _other_count(channels["train"], job)
        found += _unseen_classes(channels, names, is_all)
    found += find_palette_conflicts(channels)
    found += [*_conflicting_maps(channels), *find_range_issues(channels, job, is_all)]
    return found + list(_find_duplicates(channels, stop))


def _other_count(train: ChannelStatistics, job: Hyperparameters) -> Iterator[Issue]:
    if train.pairs != job.num_training_samples:
        yield Issue(
            "count",
            f"num_training_samples is {job.num_training_samples}, but channel train has {train.pairs} pairs. The "
            "learning rate schedule of the first epoch uses the wrong number. Correct num_training_samples, or, in "
            "File mode, remove it",
        )


def _find_label_issues(statistics: ChannelStatistics, names: Mapping[int, str]) -> Iterator[Issue]:
    channel = statistics.channel
    if statistics.unnamed:
        smooth = (
            ""
            if len(statistics.unnamed) <= _SMOOTH
            else f". There are {len(statistics.unnamed)} such values. {_SMOOTH_EDGES}"
        )
        yield Issue(
            "unnamed",
            f"channel {channel}: {statistics.label_map.source} does not contain "
            f"{list_values(statistics, statistics.unnamed)}. These pixels are ignored. If the values belong to a "
            f"class, add them to the label map{smooth}",
        )
    if statistics.exchanged and statistics.straight:
        yield from _partly_exchanged(statistics)
    yield from _find_scale_issues(statistics)
    if statistics.label_map.scale is not None and statistics.values[IGNORE] and IGNORE not in statistics.ignored:
        yield Issue(
            "void",
            f"channel {channel}: {statistics.label_map.source} turns pixel value 255 into a class ID. Usually, 255 "
            'means ignore. If it does in these annotations, use a {"map": …} without 255',
        )
    if statistics.unlabeled:
        yield Issue(
            "unlabelled",
            f"channel {channel}: {len(statistics.unlabeled)} annotations have no labeled pixels, so training cannot "
            "use them. Add labels to them, or remove them",
            tuple(statistics.unlabeled),
        )
    if statistics.mostly_ignored:
        yield Issue(
            "ignored",
            f"channel {channel}: in {len(statistics.mostly_ignored)} annotations, more than half of the pixels are "
            "ignored. Make sure that the label map contains all pixel values of the classes",
            tuple(statistics.mostly_ignored),
        )
    if statistics.repaired:
        yield Issue(
            "repaired",
            f"channel {channel}: the pixel values of {len(statistics.repaired)} annotations conflict with the colors "
            "of the classes in the Ground Truth metadata. The job uses the colors",
            tuple(statistics.repaired),
        )
    if statistics.channel == "train":
        for label in statistics.classes:
            share = statistics.labels[label] / max(1, statistics.labeled)
            if share < _RARE:
                yield Issue(
                    "rare",
                    f"class {_class_text(label, names)} has {percent(share)} of the labeled pixels of channel train, "
                    f"in {statistics.images[label]} of {statistics.opened} images. This can be too little to learn the "
                    "class. Add images of it",
                )


def _partly_exchanged(statistics: ChannelStatistics) -> Iterator[Issue]:
    """Warn of annotations with red and blue exchanged, unless other annotations show that their colors are right."""
    odd = {name: codes for name, codes in statistics.exchanged.items() if not codes & statistics.straight.keys()}
    if odd:
        colors = sorted({code for codes in odd.values() for code in codes if exchange(code) != code})
        listed = ", ".join(f"{color_name(code)} (not {color_name(exchange(code))})" for code in colors[:LISTED])
        yield Issue(
            "exchanged",
            f"channel {statistics.channel}: red and blue seem to be exchanged in {len(odd)} annotations, which have "
            f"{listed}. These pixels are ignored. OpenCV writes BGR. Save these annotations again with "
            "cv2.imwrite(path, mask[:, :, ::-1])",
            tuple(sorted(odd)),
        )


def _find_scale_issues(statistics: ChannelStatistics) -> Iterator[Issue]:
    """Warn of pixel values that are not multiples of the scale."""
    scale = statistics.label_map.scale
    if scale is None or scale == 1 or scale > IGNORE or statistics.is_color:
        return
    odd = {
        value: pixels
        for value, pixels in statistics.values.items()
        if value != IGNORE and abs(value - round(value / scale) * scale) >= 1
    }
    if odd:
        yield Issue(
            "scale",
            f"channel {statistics.channel}: {list_values(statistics, odd)} are not multiples of the scale {scale:g} in "
            f"{statistics.label_map.source}. The scale rounds them down to a class. {_SMOOTH_EDGES}. A label map such "
            'as {"map": {"0": 0, "1": 255}} ignores all other values',
        )


def _find_image_issues(statistics: ChannelStatistics) -> Iterator[Issue]:
    channel = statistics.channel
    if statistics.rotated:
        yield Issue(
            "turned",
            f"channel {channel}: {len(statistics.rotated)} images are rotated by their EXIF orientation, so that they "
            "have the size of their annotations. For such images, set EXIF_ORIENTATION=apply on the endpoint",
            tuple(statistics.rotated),
        )
    if statistics.ambiguous:
        yield Issue(
            "orientation",
            f"channel {channel}: {len(statistics.ambiguous)} images have an EXIF orientation, and the size of their "
            "annotations with and without it. They are not rotated. If the annotations were drawn on the rotated "
            "images, set _exif_orientation=apply",
            tuple(statistics.ambiguous),
        )
    if statistics.notes:
        yield Issue(
            "notes", f"channel {channel}: {len(statistics.notes)} files are unusual, but used", tuple(statistics.notes)
        )


def find_range_issues(channels: Mapping[str, ChannelStatistics], job: Hyperparameters, is_all: bool) -> Iterator[Issue]:
    """Warn of 16-bit images that lose most of their gray levels, or of a range that does not fit them."""
    deep = {channel: statistics for channel, statistics in channels.items() if statistics.deep}
    names = tuple(name for statistics in deep.values() for name in statistics.deep)
    given = f"_image_range={job.image_range}"
    if not deep:
        if job.image_range and is_all:
            yield Issue("range", f"{given} has no effect: no image of the channels has 16 bits. Remove it.")
        return
    counts = np.sum([statistics.sample_counts for statistics in deep.values()], axis=0)
    kept, better = _kept_levels(counts, job.scaled_range), _suggest_range(counts)
    low, high = (int(place) for place in np.flatnonzero(counts)[[0, -1]])
    opened = sum(statistics.usable for statistics in channels.values())
    text = (
        f"{len(names)} of {opened} images of {_list_channels(channels)} have 16 bits, with values from {low} to {high}"
    )
    inner = counts[1:-1]  # 0 and 65535 often mean that there is no data
    levels = np.count_nonzero(counts)
    if _loses_levels(counts, job.scaled_range):
        reason = f"with {given}" if job.image_range else "because 16-bit values keep their high byte"
        yield Issue(
            "range",
            f"{text}, {levels:,} gray levels. The model sees {kept} levels of them, {reason}. Set "
            f"_image_range={better[0]},{better[1]} to scale this range to 8 bits, in the job and on the endpoint.",
            names,
        )
    elif not job.image_range and (
        dark := [channel for channel in deep if _loses_levels(deep[channel].sample_counts, None)]
    ):
        few = _kept_levels(np.sum([deep[channel].sample_counts for channel in dark], axis=0), None)
        yield Issue(
            "range",
            f"{text}, but the 16-bit images of {_list_channels(dark)} use a small part of this range, of which the "
            f"model sees {few} levels. Scale the images of all channels to one range.",
            tuple(name for channel in dark for name in deep[channel].deep),
        )
    elif job.scaled_range:
        bottom, top = job.scaled_range
        clipped = (inner[: max(0, bottom - 1)].sum() + inner[top:].sum()) / max(1, inner.sum())
        if clipped > _MUCH_CLIPPED:
            yield Issue(
                "range",
                f"{text}, and {percent(clipped)} of the values are outside of {given} and are clipped. To keep them, "
                f"set _image_range={better[0]},{better[1]}.",
                names,
            )
    if job.scaled_range and len(names) < opened:
        yield Issue(
            "range",
            f"{text}, which {given} scales. It does not change the others, which have 8 bits. Convert them to 16 bits "
            "if they show the same objects at another brightness.",
            names,
        )


def _mixed_bits(statistics: ChannelStatistics) -> Iterator[Issue]:
    """Warn of a channel whose 16-bit images seem to contain samples of two bit depths, for example 12 and 16 bits."""
    images: dict[int, list[str]] = {}
    for name, largest in statistics.deep.items():
        images.setdefault(largest.bit_length(), []).append(name)
    if len(images) != 2 or min(map(len, images.values())) < max(2, _FEW_IMAGES * len(statistics.deep)):
        return
    (low, lower), (high, higher) = sorted(images.items())
    if low > 8 and high - low > 1:  # images of one depth have all lengths between the shortest and the longest
        yield Issue(
            "range",
            f"channel {statistics.channel}: {len(lower)} of the 16-bit images seem to have {low}-bit samples (at most "
            f"{2**low - 1}), and {len(higher)} seem to have {high}-bit samples (at most {2**high - 1}). The model sees "
            "the same objects at two brightness levels. Scale the images of all channels to one range.",
            tuple(lower),
        )


def _loses_levels(counts: Array, image_range: Range | None) -> bool:
    """Return whether few of many levels remain, and another range keeps more of them."""
    kept = _kept_levels(counts, image_range)
    is_few = kept <= _FEW_LEVELS and np.count_nonzero(counts) > 2 * kept
    return bool(is_few and 2 * _kept_levels(counts, _suggest_range(counts)) > 3 * kept)


def _kept_levels(counts: Array, image_range: Range | None) -> int:
    """Return how many 8-bit levels have a notable share of the samples."""
    remaining = np.bincount(scale_table(image_range), counts, 256)
    return int(np.count_nonzero(remaining > _NOTABLE * counts.sum()))


def _suggest_range(counts: Array) -> Range:
    """Return the range of the samples without extreme values; 0 to 2^k − 1 if the samples fill half of that range.

    `counts` contains the number of samples per value. 0 and 65535 often mean that there is no data, so they do not
    count if there are other values.
    """
    inner = counts.copy()
    inner[[0, -1]] = 0
    cumulated = np.cumsum(inner if inner.any() else counts)
    low, high = (int(place) for place in np.searchsorted(cumulated, cumulated[-1] * np.array([_NOTABLE, 1 - _NOTABLE])))
    full = 2 ** max(8, high.bit_length()) - 1
    if 2 * (high - low) >= full:
        return 0, full
    return (low, high) if low < high else (max(0, high - 1), max(1, high))


def _list_channels(channels: Iterable[str]) -> str:
    names = list(channels)
    return f"channel{'s' if names[1:] else ''} {' and '.join(names)}"


def _unseen_classes(
    channels: Mapping[str, ChannelStatistics], names: Mapping[int, str], is_all: bool
) -> Iterator[Issue]:
    """Warn of classes that do not occur in the train channel."""
    train = channels["train"]
    if not train.usable:
        return
    unseen = [label for label in range(train.num_classes) if not train.labels[label]]
    evaluated = [label for label in unseen if any(other.labels[label] for other in channels.values())]
    if evaluated:
        yield Issue(
            "unseen",
            f"channel train has no pixels of {_list_classes(evaluated, names)}, which the validation or test "
            f"annotations contain. The model cannot learn {'them' if evaluated[1:] else 'it'}. Add images of "
            f"{'these classes' if evaluated[1:] else 'this class'}",
        )
    absent = [label for label in unseen if label not in evaluated]
    if is_all and absent:
        classes = _list_classes(absent, names)
        yield Issue("absent", f"no annotation has pixels of {classes}. Make sure that num_classes is correct")


def _list_classes(labels: list[int], names: Mapping[int, str]) -> str:
    listed = shorten_list([_class_text(label, names) for label in labels], LISTED)
    return f"{'classes' if labels[1:] else 'class'} {listed}"


def _conflicting_maps(channels: Mapping[str, ChannelStatistics]) -> Iterator[Issue]:
    """Warn of label maps with different labels for one pixel value or color."""
    seen: dict[object, tuple[int, ChannelStatistics]] = {}
    for statistics in channels.values():
        label_map = statistics.label_map
        colors = {color_name(code): label for code, label in (label_map.colors or {}).items()}
        for value, label in [*label_map.labels.items(), *colors.items()]:
            other, owner = seen.setdefault(value, (label, statistics))
            if other != label:
                yield Issue(
                    "maps",
                    f"the label maps differ: {value} is label {label} in channel {statistics.channel}, but {other} in "
                    f"channel {owner.channel}. Unless the annotations differ in the same way, correct one of the maps",
                )
                return


def _find_duplicates(channels: Mapping[str, ChannelStatistics], stop: threading.Event) -> Iterator[Issue]:
    """Warn of images in two channels, because metrics on training images are too high."""
    ordered = list(channels.values())
    for place, statistics in enumerate(ordered):
        for other in ordered[place + 1 :]:
            if duplicates := find_duplicates(other.digests, statistics.digests, stop):
                yield Issue(
                    "repeated",
                    f"{len(duplicates)} images of channel {other.channel} have the same pixels as images of channel "
                    f"{statistics.channel}. The metrics of channel {other.channel} will be too high. Keep each image "
                    "in one channel only",
                    tuple(f"{name} is {same}" for name, same in duplicates),
                )


def _class_text(label: int, names: Mapping[int, str]) -> str:
    """Format a class as `3 (pole)`, or `3`."""
    return f"{label} ({names[label]})" if label in names else str(label)
