"""Writing of images, annotations, and label maps into the directories of channels."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from PIL import ExifTags, Image

from container.arrays import Uint8Array
from container.codecs.images import IMAGE_SUFFIXES
from local_test.formats.regions import FormatError


def place_pairs(pairs: Iterable[tuple[str, Path, Path]], data: Path, channel: str) -> list[tuple[Path, Path]]:
    """Put pairs, each with its name, into the two directories of the channel: hard links where the disk allows it."""
    placed: list[tuple[Path, Path]] = []
    names: dict[str, Path] = {}
    for name, image, annotation in pairs:
        targets = _targets(data, channel, name, image, names)
        for source, target in zip((image, annotation), targets, strict=True):
            link(source, target)
        placed.append(targets)
    return placed


def place_labels(samples: Iterable[tuple[str, Path, Uint8Array]], data: Path, channel: str) -> list[tuple[Path, Path]]:
    """Put images and their class IDs, uint8 (H, W), into the two directories of the channel; raises FormatError."""
    placed: list[tuple[Path, Path]] = []
    names: dict[str, Path] = {}
    for name, image, labels in samples:
        if image.suffix.lower() not in IMAGE_SUFFIXES:
            raise FormatError(f"{image} is neither JPEG nor PNG. Convert the images first.")
        if not image.is_file():
            raise FormatError(f"There is no {image}. Give the directory of the images that the annotations name.")
        size, displayed = _sizes(image)
        if labels.shape not in (size, displayed):  # most annotation tools apply the EXIF orientation
            raise FormatError(
                f"{image} has {size[1]} × {size[0]} pixels, but its annotations are for {labels.shape[1]} × "
                f"{labels.shape[0]}. Use the images that were annotated."
            )
        targets = _targets(data, channel, name, image, names)
        link(image, targets[0])
        targets[1].parent.mkdir(parents=True, exist_ok=True)
        targets[1].unlink(missing_ok=True)  # it can be a hard link to a file of the user
        Image.fromarray(labels).save(targets[1])
        placed.append(targets)
    return placed


def write_label_map(data: Path, channel: str, content: Mapping[str, Any]) -> None:
    """Write the label map of a channel into the channel label_map."""
    path = data / "label_map" / f"{channel}_label_map.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)  # after a split, both channels have the same file
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", "utf-8")


def _targets(data: Path, channel: str, name: str, image: Path, names: dict[str, Path]) -> tuple[Path, Path]:
    """Return where an image and its annotation belong; raises FormatError if `names` contains another such image."""
    if names.setdefault(name, image) is not image:
        raise FormatError(f"{names[name]} and {image} have the same name. Rename one of them.")
    return data / channel / f"{name}{image.suffix}", data / f"{channel}_annotation" / f"{name}.png"


def _sizes(image: Path) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return height and width as stored, and as displayed with the EXIF orientation."""
    try:
        with Image.open(image) as opened:
            size = opened.height, opened.width
            is_turned = opened.getexif().get(ExifTags.Base.Orientation) in (5, 6, 7, 8)
            return size, size[::-1] if is_turned else size
    except OSError as error:
        raise FormatError(f"{image} is not readable: {error}. Replace it.") from error


def link(source: Path, target: Path) -> None:
    """Make `target` a hard link to `source`, or a copy if the disk does not allow it."""
    source = source.resolve()  # a hard link to a relative symbolic link would lead nowhere
    if target.resolve() == source:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
