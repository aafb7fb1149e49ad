"""Reader of LabelMe files."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from container.arrays import Uint8Array
from local_test.formats.regions import (
    UNLABELED,
    Dataset,
    FormatError,
    LabeledImage,
    Notes,
    check_names,
    ellipse,
    fill,
    place,
    read_json,
    rectangle,
)


def read_labelme(folder: Path, notes: Notes) -> Dataset:
    """Read a directory of LabelMe JSON files. Class IDs follow the sorted names. Raises FormatError."""
    paths = sorted(folder.rglob("*.json"))
    contents = {path: read_json(path) for path in paths if not path.name.startswith(".")}  # "._…" files are from macOS
    files = {path: content for path, content in contents.items() if isinstance(content, dict) and "shapes" in content}
    if not files:
        raise FormatError(
            f"{folder} contains no JSON files of LabelMe. Give the directory in which LabelMe saved them."
        )
    names = sorted({shape["label"] for content in files.values() for shape in content["shapes"]} - UNLABELED.keys())

    def regions(content: dict[str, Any], size: tuple[int, int]) -> Iterator[tuple[str, Uint8Array]]:
        for shape in content["shapes"]:
            mask = _mask(shape, size)
            if mask is None:
                notes.counts[f"shapes of type {shape.get('shape_type')} (they have no area)"] += 1
            else:
                yield shape["label"], mask

    def read() -> Iterator[LabeledImage]:
        for path, content in files.items():
            image = path.parent / content["imagePath"].replace("\\", "/")
            if not image.is_file():  # LabelMe stores the path of the computer on which the image was labeled
                image = path.with_name(image.name)
            size = int(content["imageHeight"]), int(content["imageWidth"])
            yield LabeledImage(image, size, regions(content, size))

    return Dataset(check_names(names, folder), read())


def _mask(shape: Mapping[str, Any], size: tuple[int, int]) -> Uint8Array | None:
    kind, points = shape.get("shape_type") or "polygon", shape["points"]
    if kind == "polygon" and len(points) >= 3:
        return fill([np.ravel(points).tolist()], size)
    if kind == "rectangle" and len(points) == 2:
        return fill([rectangle(*points[0], *points[1])], size)
    if kind == "circle" and len(points) == 2:
        radius = math.dist(*points)
        return fill([ellipse(points[0][0], points[0][1], radius, radius)], size)
    if kind == "mask" and len(points) == 2:
        try:
            part = np.asarray(Image.open(io.BytesIO(base64.b64decode(shape["mask"])))).astype(np.uint8)
        except OSError as error:
            raise ValueError("a mask is not a readable image") from error
        return place(part, round(points[0][1]), round(points[0][0]), size)
    return None
