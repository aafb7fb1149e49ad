"""Reader of Label Studio exports."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np

from container.arrays import Uint8Array
from container.codecs.images import IMAGE_SUFFIXES
from local_test.formats.regions import Dataset, FormatError, LabeledImage, Notes, check_names, fill, read_json

_UPLOAD_PREFIX = re.compile("[0-9a-f]{8}-")


def read_label_studio(export: Path, images: Path, notes: Notes) -> Dataset:
    """Read a JSON export of Label Studio with brush strokes or polygons. Class IDs follow the sorted names.

    A task that several people annotated counts with its first annotation that was not skipped. Raises FormatError.
    """
    tasks = read_json(export)
    if not isinstance(tasks, list) or not all(isinstance(task, dict) and "annotations" in task for task in tasks):
        raise FormatError(f"{export} is not a list of tasks with annotations. In Label Studio, export as JSON.")
    results = [(task, _regions(task, notes)) for task in tasks]
    names = sorted({name for _, found in results for each in found for name in _names(each)})

    def regions(found: list[dict[str, Any]], size: tuple[int, int]) -> Iterator[tuple[str, Uint8Array]]:
        for each in found:
            for name in _names(each):
                yield name, _mask(each, size, str(export))

    def read() -> Iterator[LabeledImage]:
        for task, found in results:
            if not found:
                notes.counts["tasks without brush strokes or polygons"] += 1
                continue
            size = int(found[0]["original_height"]), int(found[0]["original_width"])
            yield LabeledImage(_find_image(task, images), size, regions(found, size))

    return Dataset(check_names(names, export), read())


def _regions(task: Mapping[str, Any], notes: Notes) -> list[dict[str, Any]]:
    finished = [each for each in task["annotations"] if not each.get("was_cancelled")]
    if len(finished) > 1:
        notes.counts["annotations of tasks that have several"] += len(finished) - 1
    result = finished[0]["result"] if finished else []
    areas = [each for each in result if each.get("type") in ("brushlabels", "polygonlabels")]
    if len(areas) < len(result):
        notes.counts["results that are neither brush strokes nor polygons"] += len(result) - len(areas)
    return areas


def _names(result: Mapping[str, Any]) -> list[str]:
    names: list[str] = result["value"].get(result["type"], [])
    return names


def _mask(result: Mapping[str, Any], size: tuple[int, int], origin: str) -> Uint8Array:
    value = result["value"]
    if result["type"] == "polygonlabels":  # in percent of the sides
        return fill([(np.array(value["points"]) * (size[1], size[0]) / 100).ravel().tolist()], size)
    alpha = decode_brush(value["rle"])[3::4]
    if len(alpha) != math.prod(size):
        raise FormatError(f"{origin}: a brush stroke has {len(alpha)} pixels, but its image is {size} (height, width).")
    return (alpha.reshape(size) >= 128).astype(np.uint8)


def _find_image(task: Mapping[str, Any], images: Path) -> Path:
    """Find the image of a task: a local file has its name, an uploaded one has a prefix of 8 hexadecimal digits."""
    names = [_file_name(each) for each in task["data"].values() if isinstance(each, str)]
    name = next((name for name in names if Path(name).suffix.lower() in IMAGE_SUFFIXES), names[0] if names else "image")
    if not (images / name).is_file():
        name = _UPLOAD_PREFIX.sub("", name, count=1)
    return images / name


def _file_name(address: str) -> str:
    """Return the file name of a path or URL. Label Studio refers to local files as /data/local-files/?d=PATH."""
    path = address.partition("?d=")[2] or (address.partition("?")[0] if "://" in address else address)
    return re.split(r"[/\\]", unquote(path))[-1]


def decode_brush(data: Sequence[int]) -> Uint8Array:
    """Decode the run-length encoding of Label Studio's brush strokes; returns RGBA values, uint8 (4 H W,).

    The format is that of https://github.com/thi-ng/umbrella/tree/develop/packages/rle-pack: the number of values
    (32 bits), their size − 1 (5 bits), and four run sizes − 1 (4 bits each). Then follow runs: a bit (1: one value
    repeated), the index of a run size (2 bits), the length − 1 in that many bits, and the value or values.
    """
    bits = "".join(f"{byte:08b}" for byte in data)
    position = 0

    def take(size: int) -> int:
        nonlocal position
        position += size
        return int(bits[position - size : position], 2)

    count, word = take(32), take(5) + 1
    sizes = [take(4) + 1 for _ in range(4)]
    values = np.zeros(count, np.uint8)
    done = 0
    while done < count:
        is_repeated = take(1)
        length = take(sizes[take(2)]) + 1
        values[done : done + length] = (
            take(word) if is_repeated else [take(word) for _ in range(length)][: count - done]
        )
        done += length
    return values
