"""What is wrong with the data, and what is odd about them, with the remedy: judged from the findings on the channels."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from container.data.colours import suggest_map
from container.data.findings import BadSample, Findings, Kind, unmapped_colours
from container.data.labels import IGNORE, LabelMap
from container.errors import ClientError

_RARE = 0.001  # of the labelled pixels
_LISTED = 10

_REMEDIES: Mapping[Kind, str] = {
    "unreadable": "cannot be read: replace or remove them",
    "size": "have annotations of another size: export them anew at the photographs' own size",
}


@dataclasses.dataclass(frozen=True)
class Fault:
    """One thing that is wrong or odd: cause and remedy, and the files or values that it is about."""

    kind: str
    message: str
    details: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Describe it for audit.json."""
        return {"kind": self.kind, "message": self.message, "details": list(self.details)}


def find_errors(channels: Mapping[str, Findings], budget: int) -> list[Fault]:
    """List what makes training senseless, the worst first; each channel may have `budget` unusable pairs."""
    faults: list[Fault] = []
    for findings in channels.values():
        if len(findings.bad) > budget:
            faults += _bad_pairs(findings, budget)
        elif fault := _unused_map(findings) or _too_few_classes(findings):
            faults.append(fault)
    return faults


def find_warnings(channels: Mapping[str, Findings], names: Mapping[int, str], budget: int) -> list[Fault]:
    """List what a person should know before a job of hours begins."""
    found: list[Fault] = []
    for findings in channels.values():
        if 0 < len(findings.bad) <= budget:
            found += _bad_pairs(findings, budget)
        found += _odd_labels(findings, names)
        found += _odd_pictures(findings)
    if "train" in channels:
        found += _unseen_classes(channels, names)
    return found + list(_repeated_images(channels))


def raise_faults(faults: list[Fault], told: str) -> None:
    """Raise one ClientError for all faults, the first of them first; `told` says where all of them are listed."""
    if not faults:
        return
    first, *others = faults
    message = first.message
    if others:
        message += f" ({len(others)} more fault{'s' if others[1:] else ''} below; {told} lists all)"
    raise ClientError(message, [*(fault.message for fault in others), *first.details])


def _bad_pairs(findings: Findings, budget: int) -> Iterator[Fault]:
    """Group the unusable pairs by what is wrong with them."""
    kinds: dict[Kind, list[BadSample]] = {}
    for error in findings.bad:
        kinds.setdefault(error.kind, []).append(error)
    skipped = f" ({len(findings.bad)} are skipped, _max_bad_records={budget})" if len(findings.bad) <= budget else ""
    for kind in sorted(kinds, key=lambda kind: -len(kinds[kind])):
        errors = kinds[kind]
        details = tuple(error.message for error in errors)
        if len(errors) == 1 and kind in _REMEDIES:
            yield Fault(kind, errors[0].message + skipped)
            continue
        if kind == "colour" and (colours := unmapped_colours(errors)):
            reason = f"annotations in colours, not class ids: {suggest_map(colours, findings.num_classes)}"
            details = tuple(error.seen.name if error.seen else error.message.split(": the ")[0] for error in errors)
        elif kind == "label":
            reason = f"annotations with pixel values that are no class{_wrong_values(findings)}"
        elif kind == "colour":
            yield Fault(kind, errors[0].message + skipped, details[1:])
            continue
        else:
            reason = f"pairs that {_REMEDIES[kind]}"
        yield Fault(kind, f"channel {findings.channel} has {len(errors)} {reason}{skipped}", details)


def _wrong_values(findings: Findings) -> str:
    told = f" (num_classes is {findings.num_classes}): {_values(findings, findings.wrong)}"
    told += "; raise num_classes, mark such pixels 255 (ignore), or give a label map"
    suggestion = _suggest_values(findings)
    return told + (f" such as {suggestion}" if suggestion else "")


def _unused_map(findings: Findings) -> Fault | None:
    """Tell of a label map none of whose values occurs."""
    label_map = findings.label_map
    if label_map.scale is not None or not findings.opened:
        return None
    named = sum(findings.values.values()) - sum(findings.unnamed.values())
    if named > findings.values[IGNORE] * (IGNORE not in label_map.labels and label_map.colours is None):
        return None
    what = "colour" if label_map.colours is not None else "pixel value"
    message = (
        f"{label_map.source} names no {what} that occurs in the annotations of channel {findings.channel}, so every pixel "
        f"would be ignored; there are {_values(findings)}"
    )
    turned = label_map.turned_round(findings.num_classes)
    if turned and LabelMap(turned).labels.keys() & findings.values.keys():
        message += f"; keys are labels and values are pixels: turned round it fits, {json.dumps(turned)}"
    elif label_map.colours is not None and findings.is_colour:
        message += f"; {suggest_map(findings.values, findings.num_classes)}"
    elif suggestion := _suggest_values(findings):
        message += f"; write {suggestion}"
    return Fault("label map", message)


def _too_few_classes(findings: Findings) -> Fault | None:
    """Tell of a channel in which there is nothing to learn, or nothing to score."""
    channel, classes = findings.channel, findings.classes
    if not findings.opened or len(classes) > (channel == "train"):
        return None
    if channel != "train":
        message = f"no pixel of channel {channel}_annotation is labelled, so nothing could be scored"
    elif classes:
        message = (
            f"all labelled pixels of channel train_annotation are of one class, {classes[0]}: there is nothing to learn, "
            "and the score would be perfect"
        )
    else:
        message = "no pixel of channel train_annotation is labelled: there is nothing to learn"
    message += f"; the pixel values are {_values(findings)}"
    turned = findings.label_map.turned_round(findings.num_classes)
    if turned and len(LabelMap(turned).labels.keys() & findings.values.keys()) > 1:
        message += f"; keys are labels and values are pixels: turned round the label map fits, {json.dumps(turned)}"
    elif suggestion := _suggest_values(findings):
        message += (
            f"; if each of them is a class, put {suggestion} into the channel label_map as train_label_map.json and "
            "validation_label_map.json"
        )
    return Fault("classes", message)


def _suggest_values(findings: Findings) -> str | None:
    """Write the map that makes a class of each pixel value, of 255 only where there is but one other."""
    values = sorted(findings.values)
    others = [value for value in values if value != IGNORE]
    chosen = others if len(others) > 1 else values
    if findings.is_colour or not 1 < len(chosen) <= findings.num_classes:
        return None
    return json.dumps({"map": {str(label): value for label, value in enumerate(chosen)}})


def _values(findings: Findings, which: Mapping[int, int] | None = None) -> str:
    """List pixel values with their shares of all pixels, the most frequent first."""
    counts = findings.values if which is None else which
    ordered = sorted(counts, key=lambda value: (-counts[value], value))
    ignored = {value for value in ordered if value in findings.unnamed} | (
        {IGNORE} - findings.label_map.labels.keys() if not findings.is_colour and not findings.wrong[IGNORE] else set()
    )
    if findings.label_map.scale is not None and findings.label_map.label_of(IGNORE, findings.num_classes) != IGNORE:
        ignored.discard(IGNORE)
    listed = [
        f"{findings.show(value)} ({percent(findings.share(counts[value]))}{', ignored' if value in ignored else ''})"
        for value in ordered[:_LISTED]
    ]
    return ", ".join(listed) + (f" and {len(ordered) - _LISTED} more" if ordered[_LISTED:] else "") or "none"


def _odd_labels(findings: Findings, names: Mapping[int, str]) -> Iterator[Fault]:
    channel = findings.channel
    if findings.unnamed:
        yield Fault(
            "unnamed",
            f"channel {channel}: {findings.label_map.source} does not name {_values(findings, findings.unnamed)}: such "
            "pixels are ignored; add them to the map if they are a class",
        )
    if findings.unlabelled:
        yield Fault(
            "unlabelled",
            f"channel {channel}: {len(findings.unlabelled)} annotations have no labelled pixel and teach nothing",
            tuple(findings.unlabelled),
        )
    if findings.mostly_ignored:
        yield Fault(
            "ignored",
            f"channel {channel}: more than half of {len(findings.mostly_ignored)} annotations is ignored",
            tuple(findings.mostly_ignored),
        )
    if findings.repainted:
        name, (index, colour, other, owner) = next(iter(findings.repainted.items()))
        yield Fault(
            "palette",
            f"channel {channel}: {len(findings.repainted)} annotations show a class id in another colour than the others "
            f"do, for example id {index} is #{colour:06x} in {name} but #{other:06x} in {owner}: ids count, not colours; if "
            'the colours are right, map them by {"colors": …} in a label map',
            tuple(findings.repainted),
        )
    if findings.channel == "train":
        for label in findings.classes:
            share = findings.labels[label] / max(1, findings.labelled)
            if share < _RARE:
                yield Fault(
                    "rare",
                    f"class {_called(label, names)} has {percent(share)} of the labelled pixels of channel train, in "
                    f"{findings.images[label]} of {findings.opened} images: it will hardly be learnt; add images of it",
                )


def _odd_pictures(findings: Findings) -> Iterator[Fault]:
    channel = findings.channel
    if findings.turned:
        yield Fault(
            "turned",
            f"channel {channel}: {len(findings.turned)} photographs are turned as their EXIF orientation says, to the size of "
            "their annotations; serve such photographs with EXIF_ORIENTATION=apply",
            tuple(findings.turned),
        )
    if findings.unturned:
        yield Fault(
            "orientation",
            f"channel {channel}: {len(findings.unturned)} photographs have an EXIF orientation, but their sizes agree with the "
            "annotations either way: they are read as stored; if the annotations were drawn as displayed, set "
            "_exif_orientation=apply",
            tuple(findings.unturned),
        )
    if findings.small:
        yield Fault(
            "small",
            f"channel {channel}: {len(findings.small)} of {findings.opened} photographs are smaller than the crop of "
            f"{findings.crop} pixels and are scaled up or padded; a lower crop_size may fit better",
            tuple(findings.small),
        )
    if findings.notes:
        yield Fault(
            "notes", f"channel {channel}: {len(findings.notes)} files are used though odd", tuple(findings.notes)
        )


def _unseen_classes(channels: Mapping[str, Findings], names: Mapping[int, str]) -> Iterator[Fault]:
    """Tell of classes that training never sees."""
    train = channels["train"]
    if len(train.bad) == train.opened:
        return
    unseen = [label for label in range(train.num_classes) if not train.labels[label]]
    scored = [label for label in unseen if any(other.labels[label] for other in channels.values())]
    if scored:
        listed = ", ".join((_called(label, names) for label in scored[:_LISTED])) + (" …" if scored[_LISTED:] else "")
        yield Fault(
            "unseen",
            f"{'classes' if scored[1:] else 'class'} {listed} of the validation or test annotations never occur in channel "
            "train, so they cannot be learnt: add images of them",
        )
    if absent := [label for label in unseen if label not in scored]:
        listed = ", ".join((_called(label, names) for label in absent[:_LISTED])) + (
            f" and {len(absent) - _LISTED} more" if absent[_LISTED:] else ""
        )
        yield Fault(
            "absent", f"{'classes' if absent[1:] else 'class'} {listed} occur in no annotation: is num_classes right?"
        )


def _repeated_images(channels: Mapping[str, Findings]) -> Iterator[Fault]:
    """Tell of images that two channels share: scores on what was trained on are too good."""
    ordered = list(channels.values())
    for place, findings in enumerate(ordered):
        for other in ordered[place + 1 :]:
            shared = [digest for digest in other.digests if digest in findings.digests]
            if shared:
                yield Fault(
                    "repeated",
                    f"{len(shared)} images of channel {other.channel} are also in channel {findings.channel}, pixel for "
                    "pixel: its score will be too good; keep each image in one channel",
                    tuple(f"{other.digests[digest][0]} is {findings.digests[digest][0]}" for digest in shared),
                )


def percent(share: float | np.floating[Any]) -> str:
    """Write a share with as many digits as tell it from nothing."""
    percent = 100 * float(share)
    return f"{percent:.1f} %" if percent >= 0.1 or not percent else f"{percent:.1g} %"


def _called(label: int, names: Mapping[int, str]) -> str:
    """Write `3 (pole)`, or `3`."""
    return f"{label} ({names[label]})" if label in names else str(label)
