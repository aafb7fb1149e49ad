"""Samples that one pass carries over to the next, as stored in a checkpoint."""

from __future__ import annotations

import os.path
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from container.artifact import model_directory
from container.codecs.recordio import frame, read_records
from container.data.labels.color_maps import ColorMap
from container.data.pipe import PipeSample
from container.data.samples import Sample


def names_of(samples: Sequence[Sample]) -> dict[str, Sample]:
    """Name listed samples by their paths below what they have in common, wherever that lies on this machine."""
    root = os.path.commonpath([os.path.dirname(sample.name) for sample in samples])
    return {os.path.relpath(sample.name, root): sample for sample in samples}


def pack(samples: Sequence[Sample], listed: Sequence[Sample] | None, path: Path) -> list[dict[str, Any]]:
    """Describe `samples` in JSON: by name those of a list, while `path` takes the records of a stream's."""
    if not samples:
        return []
    if listed is not None:
        names = {sample.name: name for name, sample in names_of(listed).items()}
        return [{"listed": names[sample.name]} for sample in samples]
    with model_directory.replacing(path) as temporary, temporary.open("wb") as stream:
        for sample in samples:
            for record in sample.read():
                stream.writelines(frame(record))
    return [
        {"streamed": sample.name, "colours": _colors(sample.color_map)}  # codespell:ignore colours
        for sample in samples
    ]


def unpack(packed: Sequence[Mapping[str, Any]], listed: Sequence[Sample] | None, path: Path) -> list[Sample]:
    """Return what `pack` described; raises KeyError for a name that is not listed."""
    if not packed:
        return []
    if listed is not None:
        names = names_of(listed)
        return [names[entry["listed"]] for entry in packed]
    with path.open("rb") as stream:
        records = list(read_records(stream))
    triples = zip(packed, records[::2], records[1::2], strict=True)
    return [
        PipeSample(entry["streamed"], image, annotation, _color_map(entry["colours"]))  # codespell:ignore colours
        for entry, image, annotation in triples
    ]


def _colors(color_map: ColorMap | None) -> dict[str, Any] | None:
    if color_map is None:
        return None
    return {str(index): [name, *color_map.colors[index]] for index, name in color_map.names.items()}


def _color_map(colors: Mapping[str, Sequence[Any]] | None) -> ColorMap | None:
    if colors is None:
        return None
    return ColorMap(
        names={int(index): entry[0] for index, entry in colors.items()},
        colors={int(index): (entry[1], entry[2], entry[3]) for index, entry in colors.items()},
    )
