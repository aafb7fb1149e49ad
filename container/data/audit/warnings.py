"""Data warnings, with fixes."""

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
from container.hyperparameters import Hyperparameters
from container.image_range import Range

_RARE = 0.001  # of the labeled pixels
_NOTABLE = 1e-4  # of the values of 16-bit images
_FEW_LEVELS = 128  # of the 256 that 8 bits have
_MUCH_CLIPPED = 0.01  # of the values of 16-bit images
_FEW_IMAGES = 0.1  # of the 16-bit images
_SMOOTH = 16  # values that a label map does not name, from which on they look like the shades of smoothed edges
_SMOOTH_EDGES = "If edges were smoothed, export the annotations again without anti-aliasing, as PNG"


def find_warnings(
    channels: Mapping[str, ChannelStatistics],
    names: Mapping[int, str],
    job: Hyperparameters,
    stop: threading.Event,
    is_all: bool = True,
) -> list[Issue]:
    """List what a person should know before a job of hours begins; `is_all`: whether all channels are among these."""
    found: list[Issue] = []
    trained = channels.get("train") or next(iter(channels.values()), None)  # an evaluation has one channel
    scale = [*find_scale(trained, job)] if trained else []
    for findings in channels.values():
        if 0 < len(findings.bad) <= job.max_bad_records and findings.usable:
            found += group_bad_pairs(findings, job.max_bad_records, channels)
        found += _odd_labels(findings, names)
        found += _odd_pictures(findings)
        found += _mixed_bits(findings)
        is_scaled = findings is trained and any(fault.kind == SCALE for fault in scale)  # which has its own crop_size
        if "train" in channels and not is_scaled:
            found += find_small(findings, job)
    found += [fault for fault in scale if fault.kind == SCALE or "train" in channels]
    if "train" in channels:
        found += _other_count(channels["train"], job)
        found += _unseen_classes(channels, names, is_all)
    found += find_palette_conflicts(channels)
    found += [*_contradicting_maps(channels), *odd_range(channels, job, is_all)]
    return found + list(_repeated_images(channels, stop))


def _other_count(train: ChannelStatistics, job: Hyperparameters) -> Iterator[Issue]:
    if train.pairs != job.num_training_samples:
        yield Issue(
            "count",
            f"num_training_samples is {job.num_training_samples}, but channel train has {train.pairs} pairs: the "
            "learning rate follows the wrong number in the first epoch; in File mode it can be left out",
        )


def _odd_labels(findings: ChannelStatistics, names: Mapping[int, str]) -> Iterator[Issue]:
    channel = findings.channel
    if findings.unnamed:
        smooth = "" if len(findings.unnamed) <= _SMOOTH else f". {len(findings.unnamed)} values: {_SMOOTH_EDGES}"
        yield Issue(
            "unnamed",
            f"channel {channel}: {findings.label_map.source} does not name {list_values(findings, findings.unnamed)}: "
            f"such pixels are ignored; add them to the map if they are a class{smooth}",
        )
    if findings.exchanged and findings.straight:
        yield from _partly_exchanged(findings)
    yield from _odd_scale(findings)
    if findings.label_map.scale is not None and findings.values[IGNORE] and IGNORE not in findings.ignored:
        yield Issue(
            "void",
            f"channel {channel}: {findings.label_map.source} makes a class of pixel value 255, which elsewhere means "
            'ignore: if it does here too, give a {"map": …} without it',
        )
    if findings.unlabeled:
        yield Issue(
            "unlabelled",
            f"channel {channel}: {len(findings.unlabeled)} annotations have no labeled pixel and count for nothing",
            tuple(findings.unlabeled),
        )
    if findings.mostly_ignored:
        yield Issue(
            "ignored",
            f"channel {channel}: more than half of {len(findings.mostly_ignored)} annotations is ignored",
            tuple(findings.mostly_ignored),
        )
    if findings.repaired:
        yield Issue(
            "repaired",
            f"channel {channel}: the ids of {len(findings.repaired)} masks contradict the colors that Ground Truth's "
            "metadata give their classes: the colors are followed",
            tuple(findings.repaired),
        )
    if findings.channel == "train":
        for label in findings.classes:
            share = findings.labels[label] / max(1, findings.labeled)
            if share < _RARE:
                yield Issue(
                    "rare",
                    f"class {_called(label, names)} has {percent(share)} of the labeled pixels of channel train, in "
                    f"{findings.images[label]} of {findings.opened} images: it will hardly be learnt; add images of it",
                )


def _partly_exchanged(findings: ChannelStatistics) -> Iterator[Issue]:
    """Tell of some annotations with red and blue exchanged, unless others show that their colors are others."""
    odd = {name: codes for name, codes in findings.exchanged.items() if not codes & findings.straight.keys()}
    if odd:
        colors = sorted({code for codes in odd.values() for code in codes if exchange(code) != code})
        listed = ", ".join(f"{color_name(code)} (not {color_name(exchange(code))})" for code in colors[:LISTED])
        yield Issue(
            "exchanged",
            f"channel {findings.channel}: red and blue seem to be exchanged in {len(odd)} annotations, which have "
            f"{listed}: these pixels are ignored. OpenCV writes BGR: save these annotations again with "
            "cv2.imwrite(path, mask[:, :, ::-1])",
            tuple(sorted(odd)),
        )


def _odd_scale(findings: ChannelStatistics) -> Iterator[Issue]:
    """Tell of pixel values between the multiples of a scale."""
    scale = findings.label_map.scale
    if scale is None or scale == 1 or scale > IGNORE or findings.is_color:
        return
    odd = {
        value: pixels
        for value, pixels in findings.values.items()
        if value != IGNORE and abs(value - round(value / scale) * scale) >= 1
    }
    if odd:
        yield Issue(
            "scale",
            f"channel {findings.channel}: {list_values(findings, odd)} are not multiples of the scale {scale:g} in "
            f"{findings.label_map.source}. The scale rounds them down to a class. {_SMOOTH_EDGES}. A label map such as "
            '{"map": {"0": 0, "1": 255}} ignores all other values',
        )


def _odd_pictures(findings: ChannelStatistics) -> Iterator[Issue]:
    channel = findings.channel
    if findings.turned:
        yield Issue(
            "turned",
            f"channel {channel}: {len(findings.turned)} photographs are turned as their EXIF orientation says, to the "
            "size of their annotations; serve such photographs with EXIF_ORIENTATION=apply",
            tuple(findings.turned),
        )
    if findings.unturned:
        yield Issue(
            "orientation",
            f"channel {channel}: {len(findings.unturned)} photographs have an EXIF orientation, but fit their "
            "annotations either way: they are read as stored; if the annotations were drawn as displayed, set "
            "_exif_orientation=apply",
            tuple(findings.unturned),
        )
    if findings.notes:
        yield Issue(
            "notes", f"channel {channel}: {len(findings.notes)} files are used though odd", tuple(findings.notes)
        )


def odd_range(channels: Mapping[str, ChannelStatistics], job: Hyperparameters, is_all: bool) -> Iterator[Issue]:
    """Tell of 16-bit images that lose most of their gray levels, or of a range that does not fit them."""
    deep = {channel: findings for channel, findings in channels.items() if findings.deep}
    names = tuple(name for findings in deep.values() for name in findings.deep)
    given = f"_image_range={job.image_range}"
    if not deep:
        if job.image_range and is_all:
            yield Issue("range", f"{given} has no effect: no image of the channels has 16 bits. Remove it.")
        return
    counts = np.sum([findings.sample_counts for findings in deep.values()], axis=0)
    kept, better = _kept_levels(counts, job.scaled_range), _suggest_range(counts)
    low, high = (int(place) for place in np.flatnonzero(counts)[[0, -1]])
    opened = sum(findings.usable for findings in channels.values())
    told = f"{len(names)} of {opened} images of {_listed(channels)} have 16 bits, with values from {low} to {high}"
    inner = counts[1:-1]  # 0 and 65535 often mean that there is no data
    levels = np.count_nonzero(counts)
    if _loses_levels(counts, job.scaled_range):
        reason = f"with {given}" if job.image_range else "because 16-bit values keep their high byte"
        yield Issue(
            "range",
            f"{told}, {levels:,} gray levels. The model sees {kept} levels of them, {reason}. Set "
            f"_image_range={better[0]},{better[1]} to scale this range to 8 bits, in the job and on the endpoint.",
            names,
        )
    elif not job.image_range and (
        dark := [channel for channel in deep if _loses_levels(deep[channel].sample_counts, None)]
    ):
        few = _kept_levels(np.sum([deep[channel].sample_counts for channel in dark], axis=0), None)
        yield Issue(
            "range",
            f"{told}, but the 16-bit images of {_listed(dark)} use a small part of this range, of which the model sees "
            f"{few} levels. Scale the images of all channels to one range.",
            tuple(name for channel in dark for name in deep[channel].deep),
        )
    elif job.scaled_range:
        bottom, top = job.scaled_range
        clipped = (inner[: max(0, bottom - 1)].sum() + inner[top:].sum()) / max(1, inner.sum())
        if clipped > _MUCH_CLIPPED:
            yield Issue(
                "range",
                f"{told}, and {percent(clipped)} of the values are outside of {given} and are clipped. To keep them, "
                f"set _image_range={better[0]},{better[1]}.",
                names,
            )
    if job.scaled_range and len(names) < opened:
        yield Issue(
            "range",
            f"{told}, which {given} scales. It does not change the others, which have 8 bits. Convert them to 16 bits "
            "if they show the same objects at another brightness.",
            names,
        )


def _mixed_bits(findings: ChannelStatistics) -> Iterator[Issue]:
    """Warn of a channel whose 16-bit images seem to contain samples of two bit depths, for example 12 and 16 bits."""
    images: dict[int, list[str]] = {}
    for name, largest in findings.deep.items():
        images.setdefault(largest.bit_length(), []).append(name)
    if len(images) != 2 or min(map(len, images.values())) < max(2, _FEW_IMAGES * len(findings.deep)):
        return
    (low, lower), (high, higher) = sorted(images.items())
    if low > 8 and high - low > 1:  # images of one depth have all lengths between the shortest and the longest
        yield Issue(
            "range",
            f"channel {findings.channel}: {len(lower)} of the 16-bit images seem to have {low}-bit samples (at most "
            f"{2**low - 1}), and {len(higher)} seem to have {high}-bit samples (at most {2**high - 1}). The model sees "
            "the same objects at two brightness levels. Scale the images of all channels to one range.",
            tuple(lower),
        )


def _loses_levels(counts: Array, image_range: Range | None) -> bool:
    """Tell whether few levels remain of many, of which another range keeps more."""
    kept = _kept_levels(counts, image_range)
    is_few = kept <= _FEW_LEVELS and np.count_nonzero(counts) > 2 * kept
    return bool(is_few and 2 * _kept_levels(counts, _suggest_range(counts)) > 3 * kept)


def _kept_levels(counts: Array, image_range: Range | None) -> int:
    """Return how many 8-bit levels with a notable share of the values remain."""
    remaining = np.bincount(scale_table(image_range), counts, 256)
    return int(np.count_nonzero(remaining > _NOTABLE * counts.sum()))


def _suggest_range(counts: Array) -> Range:
    """Return the range of the values, but for the most extreme; of 0 to 2^k − 1, if they fill half of that.

    `counts` are those of each 16-bit sample. 0 and 65535 often mean that there is no data: others decide, if any.
    """
    inner = counts.copy()
    inner[[0, -1]] = 0
    cumulated = np.cumsum(inner if inner.any() else counts)
    low, high = (int(place) for place in np.searchsorted(cumulated, cumulated[-1] * np.array([_NOTABLE, 1 - _NOTABLE])))
    full = 2 ** max(8, high.bit_length()) - 1
    if 2 * (high - low) >= full:
        return 0, full
    return (low, high) if low < high else (max(0, high - 1), max(1, high))


def _listed(channels: Iterable[str]) -> str:
    names = list(channels)
    return f"channel{'s' if names[1:] else ''} {' and '.join(names)}"


def _unseen_classes(
    channels: Mapping[str, ChannelStatistics], names: Mapping[int, str], is_all: bool
) -> Iterator[Issue]:
    """Tell of classes that training never sees."""
    train = channels["train"]
    if not train.usable:
        return
    unseen = [label for label in range(train.num_classes) if not train.labels[label]]
    scored = [label for label in unseen if any(other.labels[label] for other in channels.values())]
    if scored:
        yield Issue(
            "unseen",
            f"channel train has no pixel of {_list_classes(scored, names)}, which the validation or test annotations "
            "have: it cannot be learnt; add images of it",
        )
    absent = [label for label in unseen if label not in scored]
    if is_all and absent:
        yield Issue("absent", f"no annotation has a pixel of {_list_classes(absent, names)}: is num_classes right?")


def _list_classes(labels: list[int], names: Mapping[int, str]) -> str:
    listed = ", ".join(_called(label, names) for label in labels[:LISTED])
    more = f" and {len(labels) - LISTED} more" if labels[LISTED:] else ""
    return f"{'classes' if labels[1:] else 'class'} {listed}{more}"


def _contradicting_maps(channels: Mapping[str, ChannelStatistics]) -> Iterator[Issue]:
    """Tell of label maps that make different labels of one pixel value or color."""
    seen: dict[object, tuple[int, ChannelStatistics]] = {}
    for findings in channels.values():
        label_map = findings.label_map
        colors = {color_name(code): label for code, label in (label_map.colors or {}).items()}
        for value, label in [*label_map.labels.items(), *colors.items()]:
            other, owner = seen.setdefault(value, (label, findings))
            if other != label:
                yield Issue(
                    "maps",
                    f"the label maps differ: {value} is label {label} in channel {findings.channel}, but {other} in "
                    f"channel {owner.channel}; mend one, unless their annotations really are drawn so",
                )
                return


def _repeated_images(channels: Mapping[str, ChannelStatistics], stop: threading.Event) -> Iterator[Issue]:
    """Tell of images that two channels share: scores on what was trained on are too good."""
    ordered = list(channels.values())
    for place, findings in enumerate(ordered):
        for other in ordered[place + 1 :]:
            if repeats := find_duplicates(other.digests, findings.digests, stop):
                yield Issue(
                    "repeated",
                    f"{len(repeats)} images of channel {other.channel} are in channel {findings.channel} too, pixel "
                    "for pixel: its score will be too good; keep each image in one channel",
                    tuple(f"{name} is {same}" for name, same in repeats),
                )


def _called(label: int, names: Mapping[int, str]) -> str:
    """Write `3 (pole)`, or `3`."""
    return f"{label} ({names[label]})" if label in names else str(label)
