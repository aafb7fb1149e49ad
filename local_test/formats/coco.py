"""Reader of COCO files."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pycocotools import mask as coco

from container.arrays import Uint8Array
from local_test.formats.regions import Dataset, FormatError, LabeledImage, Notes, check_names, fill, read_json


def read_coco(annotations: Path, images: Path, notes: Notes) -> Dataset:
    """Read a COCO file of instances. Class IDs follow the category IDs. Raises FormatError."""
    content = read_json(annotations)
    if not isinstance(content, dict) or not {"images", "annotations", "categories"} <= content.keys():
        raise FormatError(f"{annotations} has no images, annotations, and categories. Use a COCO file of instances.")
    if not content["images"]:
        raise FormatError(f"{annotations} contains no images. Export it again.")
    categories = {each["id"]: each["name"] for each in sorted(content["categories"], key=lambda each: each["id"])}
    by_image: dict[Any, list[dict[str, Any]]] = {}
    for each in content["annotations"]:
        if each.get("category_id") not in categories:
            raise FormatError(
                f"{annotations}: annotation {each.get('id')} has category {each.get('category_id')}, which categories "
                "do not contain. Export the file again."
            )
        by_image.setdefault(each["image_id"], []).append(each)
    if unknown := by_image.keys() - {each["id"] for each in content["images"]}:
        raise FormatError(f"{annotations}: images do not contain the image_id {min(map(str, unknown))} of annotations.")

    def regions(entry: dict[str, Any]) -> Iterator[tuple[str, Uint8Array]]:
        size = int(entry["height"]), int(entry["width"])
        for each in by_image.get(entry["id"], []):
            mask = _mask(each.get("segmentation"), size, f"{annotations}: annotation {each.get('id')}")
            if mask is None:
                notes.counts["annotations without a segmentation (bounding boxes, for example)"] += 1
            else:
                yield categories[each["category_id"]], mask

    def read() -> Iterator[LabeledImage]:
        for entry in content["images"]:
            path = images / entry["file_name"]
            yield LabeledImage(path, (int(entry["height"]), int(entry["width"])), regions(entry))

    return Dataset(check_names(list(categories.values()), annotations), read())


def _mask(segmentation: Any, size: tuple[int, int], origin: str) -> Uint8Array | None:
    """Decode polygons, a run-length encoding, or a compressed one; None if there is nothing to draw."""
    if isinstance(segmentation, list):
        polygons = [points for points in segmentation if len(points) >= 6]
        return fill(polygons, size) if polygons else None
    if not isinstance(segmentation, dict):
        return None
    try:
        if list(segmentation["size"]) != list(size):
            raise FormatError(f"{origin} is {segmentation['size']}, but the image is {list(size)} (height, width).")
        if isinstance(segmentation["counts"], list) and sum(segmentation["counts"]) != math.prod(size):
            raise FormatError(f"{origin}: the run lengths do not add up to the {math.prod(size)} pixels of the image.")
        encoded = coco.frPyObjects(segmentation, *size) if isinstance(segmentation["counts"], list) else segmentation
        mask: Uint8Array = coco.decode(encoded)
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, FormatError):
            raise
        raise FormatError(f"{origin} has an invalid run-length encoding: {error}. Export the file again.") from error
    return mask
