"""What is odd about the data, with the remedy: judged from the findings on the channels."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping

from container.data.audit.errors import group_bad_pairs
from container.data.audit.faults import LISTED, Fault, list_values, percent
from container.data.audit.scale import SCALE, find_scale, find_small
from container.data.findings import Findings
from container.data.reading import IGNORE
from container.data.repeats import find_repeats
from container.hyperparameters import Hyperparameters

_RARE = 0.001  # of the labelled pixels


def find_warnings(
    channels: Mapping[str, Findings],
    names: Mapping[int, str],
    job: Hyperparameters,
    stop: threading.Event,
    is_all: bool = True,
) -> list[Fault]:
    """List what a person should know before a job of hours begins; `is_all`: whether all channels are among these."""
    found: list[Fault] = []
    trained = channels.get("train") or next(iter(channels.values()), None)  # an evaluation has one channel
    scale = [*find_scale(trained, job)] if trained else []
    for findings in channels.values():
        if 0 < len(findings.bad) <= job.max_bad_records and findings.usable:
            found += group_bad_pairs(findings, job.max_bad_records, channels)
        found += _odd_labels(findings, names)
        found += _odd_pictures(findings)
        is_scaled = findings is trained and any(fault.kind == SCALE for fault in scale)  # which has its own crop_size
        if "train" in channels and not is_scaled:
            found += find_small(findings, job)
    found += [fault for fault in scale if fault.kind == SCALE or "train" in channels]
    if "train" in channels:
        found += _other_count(channels["train"], job)
        found += _unseen_classes(channels, names, is_all)
    found += _contradicting_maps(channels)
    return found + list(_repeated_images(channels, stop))


def _other_count(train: Findings, job: Hyperparameters) -> Iterator[Fault]:
    if train.pairs != job.num_training_samples:
        yield Fault(
            "count",
            f"num_training_samples is {job.num_training_samples}, but channel train has {train.pairs} pairs: the "
            "learning rate follows the wrong number in the first epoch; in File mode it can be left out",
        )


def _odd_labels(findings: Findings, names: Mapping[int, str]) -> Iterator[Fault]:
    channel = findings.channel
    if findings.unnamed:
        yield Fault(
            "unnamed",
            f"channel {channel}: {findings.label_map.source} does not name {list_values(findings, findings.unnamed)}: "
            "such pixels are ignored; add them to the map if they are a class",
        )
    if findings.label_map.scale is not None and findings.values[IGNORE] and IGNORE not in findings.ignored:
        yield Fault(
            "void",
            f"channel {channel}: {findings.label_map.source} makes a class of pixel value 255, which elsewhere means "
            'ignore: if it does here too, give a {"map": …} without it',
        )
    if findings.unlabelled:
        yield Fault(
            "unlabelled",
            f"channel {channel}: {len(findings.unlabelled)} annotations have no labelled pixel and count for nothing",
            tuple(findings.unlabelled),
        )
    if findings.mostly_ignored:
        yield Fault(
            "ignored",
            f"channel {channel}: more than half of {len(findings.mostly_ignored)} annotations is ignored",
            tuple(findings.mostly_ignored),
        )
    if findings.repaired:
        yield Fault(
            "repaired",
            f"channel {channel}: the ids of {len(findings.repaired)} masks contradict the colours that Ground Truth's "
            "metadata give their classes: the colours are followed",
            tuple(findings.repaired),
        )
    if fault := _contradicting_palettes(findings):
        yield fault
    if findings.channel == "train":
        for label in findings.classes:
            share = findings.labels[label] / max(1, findings.labelled)
            if share < _RARE:
                yield Fault(
                    "rare",
                    f"class {_called(label, names)} has {percent(share)} of the labelled pixels of channel train, in "
                    f"{findings.images[label]} of {findings.opened} images: it will hardly be learnt; add images of it",
                )


def _contradicting_palettes(findings: Findings) -> Fault | None:
    """Tell of annotations that show an id in another colour than most do."""
    odd: set[str] = set()
    example = ""
    for index, colours in sorted(findings.palettes.items()):
        (usual, most), *others = sorted(colours.items(), key=lambda item: (-len(item[1]), item[1][0]))
        for colour, names in others:
            odd.update(names)
            example = example or f"id {index} is #{colour:06x} in {names[0]} but #{usual:06x} in {most[0]}"
    if not odd:
        return None
    return Fault(
        "palette",
        f"channel {findings.channel}: {len(odd)} annotations show a class id in another colour than most do, for "
        f"example {example}: ids count, not colours; if the colours are right, map them by "
        '{"colors": …} in a label map',
        tuple(sorted(odd)),
    )


def _odd_pictures(findings: Findings) -> Iterator[Fault]:
    channel = findings.channel
    if findings.turned:
        yield Fault(
            "turned",
            f"channel {channel}: {len(findings.turned)} photographs are turned as their EXIF orientation says, to the "
            "size of their annotations; serve such photographs with EXIF_ORIENTATION=apply",
            tuple(findings.turned),
        )
    if findings.unturned:
        yield Fault(
            "orientation",
            f"channel {channel}: {len(findings.unturned)} photographs have an EXIF orientation, but fit their "
            "annotations either way: they are read as stored; if the annotations were drawn as displayed, set "
            "_exif_orientation=apply",
            tuple(findings.unturned),
        )
    if findings.notes:
        yield Fault(
            "notes", f"channel {channel}: {len(findings.notes)} files are used though odd", tuple(findings.notes)
        )


def _unseen_classes(channels: Mapping[str, Findings], names: Mapping[int, str], is_all: bool) -> Iterator[Fault]:
    """Tell of classes that training never sees."""
    train = channels["train"]
    if not train.usable:
        return
    unseen = [label for label in range(train.num_classes) if not train.labels[label]]
    scored = [label for label in unseen if any(other.labels[label] for other in channels.values())]
    if scored:
        yield Fault(
            "unseen",
            f"channel train has no pixel of {_list_classes(scored, names)}, which the validation or test annotations "
            "have: it cannot be learnt; add images of it",
        )
    absent = [label for label in unseen if label not in scored]
    if is_all and absent:
        yield Fault("absent", f"no annotation has a pixel of {_list_classes(absent, names)}: is num_classes right?")


def _list_classes(labels: list[int], names: Mapping[int, str]) -> str:
    listed = ", ".join(_called(label, names) for label in labels[:LISTED])
    more = f" and {len(labels) - LISTED} more" if labels[LISTED:] else ""
    return f"{'classes' if labels[1:] else 'class'} {listed}{more}"


def _contradicting_maps(channels: Mapping[str, Findings]) -> Iterator[Fault]:
    """Tell of label maps that make different labels of one pixel value or colour."""
    seen: dict[object, tuple[int, Findings]] = {}
    for findings in channels.values():
        label_map = findings.label_map
        colours = {f"#{code:06x}": label for code, label in (label_map.colours or {}).items()}
        for value, label in [*label_map.labels.items(), *colours.items()]:
            other, owner = seen.setdefault(value, (label, findings))
            if other != label:
                yield Fault(
                    "maps",
                    f"the label maps differ: {value} is label {label} in channel {findings.channel}, but {other} in "
                    f"channel {owner.channel}; mend one, unless their annotations really are drawn so",
                )
                return


def _repeated_images(channels: Mapping[str, Findings], stop: threading.Event) -> Iterator[Fault]:
    """Tell of images that two channels share: scores on what was trained on are too good."""
    ordered = list(channels.values())
    for place, findings in enumerate(ordered):
        for other in ordered[place + 1 :]:
            if repeats := find_repeats(other.digests, findings.digests, stop):
                yield Fault(
                    "repeated",
                    f"{len(repeats)} images of channel {other.channel} are in channel {findings.channel} too, pixel "
                    "for pixel: its score will be too good; keep each image in one channel",
                    tuple(f"{name} is {same}" for name, same in repeats),
                )


def _called(label: int, names: Mapping[int, str]) -> str:
    """Write `3 (pole)`, or `3`."""
    return f"{label} ({names[label]})" if label in names else str(label)
