"""Turn a labeled data set into channels and augmented manifests: File-mode directories, or a Pascal VOC VOCdevkit."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from container.codecs.images import IMAGE_SUFFIXES

CHANNELS = ("train", "validation")
_VOC_LISTS = {"train": "train", "validation": "val"}
_LISTED = 20


class ConvertError(ValueError):
    """The data set is not complete; the text names what is missing."""


def pair_directories(data: Path, channel: str) -> list[tuple[Path, Path]]:
    """Match the images of `channel` with the PNGs of `channel`_annotation by stem; raises ConvertError."""
    images = _list(data / channel, IMAGE_SUFFIXES)
    annotations = _list(data / f"{channel}_annotation", (".png",))
    unpaired = sorted(images.keys() ^ annotations.keys())
    if unpaired or not images:
        listed = ", ".join(unpaired[:_LISTED]) or "there is no image"
        raise ConvertError(f"{data / channel} and {data / channel}_annotation do not match by stem: {listed}")
    return [(images[stem], annotations[stem]) for stem in sorted(images)]


def pair_voc(devkit: Path, channel: str) -> list[tuple[Path, Path]]:
    """List the pairs of one of VOC's segmentation sets; `devkit` is VOCdevkit or one year's folder below it."""
    years = sorted(devkit.glob("VOC*/ImageSets"))
    year = years[-1].parent if years else devkit
    names = year / "ImageSets" / "Segmentation" / f"{_VOC_LISTS[channel]}.txt"
    if not names.is_file():
        raise ConvertError(f"there is no {names}: give the folder that holds JPEGImages and SegmentationClass")
    stems = names.read_text().split()
    pairs = [(year / "JPEGImages" / f"{stem}.jpg", year / "SegmentationClass" / f"{stem}.png") for stem in stems]
    if missing := [str(path) for pair in pairs for path in pair if not path.is_file()]:
        raise ConvertError(f"{names} lists what is not there: {', '.join(missing[:_LISTED])}")
    return pairs


def place_pairs(pairs: Iterable[tuple[Path, Path]], data: Path, channel: str) -> list[tuple[Path, Path]]:
    """Put the pairs into the channel's two directories below `data`, as hard links where the disk allows it."""
    placed = []
    for image, annotation in pairs:
        targets = data / channel / image.name, data / f"{channel}_annotation" / annotation.name
        for source, target in zip((image, annotation), targets, strict=True):
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)
            try:
                os.link(source, target)
            except OSError:
                shutil.copyfile(source, target)
        placed.append(targets)
    return placed


def write_manifest(path: Path, pairs: Iterable[tuple[Path, Path]], data: Path, s3_prefix: str | None) -> None:
    """Write one JSON line per pair, with absolute paths or with `s3_prefix` in place of `data`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [
        json.dumps({"source-ref": _refer(image, data, s3_prefix), "annotation-ref": _refer(label, data, s3_prefix)})
        for image, label in pairs
    ]
    path.write_text("\n".join(lines) + "\n")


def main() -> None:
    """Convert one data set."""
    parser = argparse.ArgumentParser(prog="python -m local_test.convert", description=__doc__)
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="directories | voc")
    directories = kinds.add_parser("directories", help="write manifests for channels that exist already")
    directories.add_argument("data", type=Path, help="holds train, train_annotation, validation, validation_annotation")
    voc = kinds.add_parser("voc", help="fill the channels from VOC's segmentation sets, and write manifests")
    voc.add_argument("devkit", type=Path, help="VOCdevkit, or VOC2012 below it")
    voc.add_argument("data", type=Path, help="where the channels go, such as local_test/test_dir/input/data")
    for kind in (directories, voc):
        kind.add_argument("--manifests", type=Path, metavar="DIR", help="where the manifests go (DATA's parent)")
        kind.add_argument("--s3-prefix", metavar="s3://BUCKET/PREFIX", help="where DATA is going to be uploaded to")
    arguments = parser.parse_args()
    manifests = arguments.manifests or arguments.data.parent
    try:
        pairs = _read_pairs(arguments)
    except ConvertError as error:
        sys.exit(f"convert: {error}")
    for channel in CHANNELS:
        path = manifests / f"{channel}.manifest"
        write_manifest(path, pairs[channel], arguments.data, arguments.s3_prefix)
        print(f"{path}: {len(pairs[channel])} pairs")


def _read_pairs(arguments: argparse.Namespace) -> Mapping[str, list[tuple[Path, Path]]]:
    if arguments.kind == "directories":
        return {channel: pair_directories(arguments.data, channel) for channel in CHANNELS}
    pairs = {channel: pair_voc(arguments.devkit, channel) for channel in CHANNELS}
    return {channel: place_pairs(pairs[channel], arguments.data, channel) for channel in CHANNELS}


def _list(folder: Path, suffixes: tuple[str, ...]) -> dict[str, Path]:
    """List the files with one of `suffixes` by stem, hidden ones aside."""
    if not folder.is_dir():
        raise ConvertError(f"there is no directory {folder}")
    files: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if hidden or path.suffix.lower() not in suffixes:
            continue
        if path.stem in files:
            raise ConvertError(f"{path} and {files[path.stem]} have the same stem: rename one")
        files[path.stem] = path
    return files


def _refer(path: Path, data: Path, s3_prefix: str | None) -> str:
    return f"{s3_prefix.rstrip('/')}/{path.relative_to(data)}" if s3_prefix else str(path.absolute())


if __name__ == "__main__":
    main()
