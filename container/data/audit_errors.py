"""What makes training senseless, with the remedy: judged from the findings on the channels."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from container.data.colours import suggest_map
from container.data.faults import Fault, list_values
from container.data.findings import BadSample, Findings, Kind, unmapped_colours
from container.data.labels import LabelMap
from container.data.reading import IGNORE

_REASONS: Mapping[Kind, str] = {
    "unreadable": "pairs that cannot be read: replace or remove them",
    "size": "pairs of two sizes: export the annotations anew at the photographs' own size",
    "colour": "annotations whose colours cannot be read",
}


def find_errors(channels: Mapping[str, Findings], budget: int) -> list[Fault]:
    """List what makes training senseless, the worst first; each channel may have `budget` unusable pairs."""
    faults: list[Fault] = []
    for findings in channels.values():
        if len(findings.bad) > budget:
            faults += group_bad_pairs(findings, budget)
        elif fault := _unused_map(findings) or _too_few_classes(findings):
            faults.append(fault)
    return faults


def group_bad_pairs(findings: Findings, budget: int) -> Iterator[Fault]:
    """Group the unusable pairs by what is wrong with them."""
    kinds: dict[Kind, list[BadSample]] = {}
    for error in findings.bad:
        kinds.setdefault(error.kind, []).append(error)
    skipped = f" ({len(findings.bad)} are skipped, _max_bad_records={budget})" if len(findings.bad) <= budget else ""
    for kind in sorted(kinds, key=lambda kind: -len(kinds[kind])):
        errors = kinds[kind]
        details = tuple(error.message for error in errors)
        suggestion = _suggest_values(findings) if kind == "label" else None
        suggested = f" such as {suggestion}" if suggestion else ""
        if len(errors) == 1:
            yield Fault(kind, errors[0].message + suggested + skipped)
            continue
        colours = unmapped_colours(errors) if kind == "colour" else None
        if colours:
            reason = f"annotations in colours, not class ids: {suggest_map(colours, findings.num_classes)}"
        elif kind == "label":
            reason = (
                f"annotations with pixel values that are no class (num_classes is {findings.num_classes}): "
                f"{list_values(findings, findings.wrong)}; raise num_classes, mark such pixels 255 (ignore), or give a "
                f"label map{suggested}"
            )
        else:
            reason = _REASONS[kind]
        yield Fault(kind, f"channel {findings.channel} has {len(errors)} {reason}{skipped}", details)


def _unused_map(findings: Findings) -> Fault | None:
    """Tell of a label map none of whose values occurs."""
    label_map = findings.label_map
    named = label_map.labels if label_map.colours is None else label_map.colours
    if label_map.scale is not None or not findings.opened or named.keys() & findings.values.keys():
        return None
    what = "colour" if label_map.colours is not None else "pixel value"
    message = (
        f"{label_map.source} names no {what} that occurs in the annotations of channel {findings.channel}: all would "
        f"be ignored; there are {list_values(findings)}"
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
            f"all labelled pixels of channel train_annotation are of one class, {classes[0]}: there is nothing to "
            "learn, and the score would be perfect"
        )
    else:
        message = "no pixel of channel train_annotation is labelled: there is nothing to learn"
    message += f"; the pixel values are {list_values(findings)}"
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
