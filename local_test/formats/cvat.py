"""Reader of CVAT files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from container.arrays import Uint8Array
from local_test.formats.regions import (
    Dataset,
    FormatError,
    LabeledImage,
    Notes,
    check_names,
    ellipse,
    fill,
    place,
    rectangle,
    rotate,
)


def read_cvat(annotations: Path, images: Path, notes: Notes) -> Dataset:
    """Read a file of "CVAT for images 1.1". Class IDs follow the labels of the task. Raises FormatError.

    Shapes are drawn in the order of z_order, then of the file.
    """
    try:
        root = ElementTree.fromstring(annotations.read_bytes())  # expat loads no external entities and limits others
    except (OSError, ElementTree.ParseError) as error:
        raise FormatError(
            f"{annotations} is not readable as XML: {error}. Export it as CVAT for images 1.1."
        ) from error
    entries = root.findall("image")
    if not entries:
        raise FormatError(f"{annotations} contains no image. Export it as CVAT for images 1.1 (not for video).")
    shapes = [shape.get("label", "") for entry in entries for shape in entry if shape.get("label")]
    names = [label.findtext("name", "") for label in root.iterfind("meta//labels/label")] or sorted(set(shapes))

    def regions(entry: ElementTree.Element, size: tuple[int, int]) -> Iterator[tuple[str, Uint8Array]]:
        for shape in sorted(entry, key=lambda shape: int(shape.get("z_order", 0))):  # the sort is stable
            mask = _mask(shape, size)
            if mask is not None:
                yield shape.attrib["label"], mask
            elif shape.tag != "tag":
                notes.counts[f"shapes of type {shape.tag} (they have no area)"] += 1

    def read() -> Iterator[LabeledImage]:
        for entry in entries:
            size = int(entry.attrib["height"]), int(entry.attrib["width"])
            yield LabeledImage(images / entry.attrib["name"], size, regions(entry, size))

    if missing := set(shapes) - set(names):
        raise FormatError(
            f"{annotations}: the labels of the task do not contain {min(missing)}. Export the file again."
        )
    return Dataset(check_names(names, annotations), read())


def _mask(shape: ElementTree.Element, size: tuple[int, int]) -> Uint8Array | None:
    def number(name: str) -> float:
        return float(shape.attrib[name])

    if shape.tag == "polygon":
        return fill([[float(value) for value in re.split("[,;]", shape.attrib["points"])]], size)
    if shape.tag == "box":
        box = rectangle(number("xtl"), number("ytl"), number("xbr"), number("ybr"))
        return fill([rotate(box, float(shape.get("rotation", 0)))], size)
    if shape.tag == "ellipse":
        outline = ellipse(number("cx"), number("cy"), number("rx"), number("ry"))
        return fill([rotate(outline, float(shape.get("rotation", 0)))], size)
    if shape.tag == "mask":  # run lengths of 0 and 1 in turn, row by row, within its bounding box
        runs = [int(run) for run in shape.attrib["rle"].split(",")]
        part = np.repeat(np.arange(len(runs)) % 2, runs).astype(np.uint8)
        height, width = int(number("height")), int(number("width"))
        return place(part.reshape(height, width), int(number("top")), int(number("left")), size)
    return None
