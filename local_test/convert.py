"""Create channels and augmented manifests from a labeled data set: channel directories, or a Pascal VOC VOCdevkit."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from container.data.pairing import find_pairs
from container.environment import Channel
from container.errors import ClientError

CHANNELS = ("train", "validation")
_VOC_LISTS = {"train": "train", "validation": "val"}


def pair_directories(data: Path, channel: str) -> list[tuple[Path, Path]]:
    """Match the images of `channel` with the annotations of `channel`_annotation as a job does; raises ClientError."""
    channels = {name: Channel(name, data / name) for each in CHANNELS for name in (each, f"{each}_annotation")}
    for name in (channel, f"{channel}_annotation"):
        if not channels[name].path.is_dir():
            raise ClientError(f"The directory {channels[name].path} does not exist. Specify the directory above it.")
    return [(sample.image, sample.annotation) for sample in find_pairs(channels, channel)]


def pair_voc(devkit: Path, channel: str) -> list[tuple[Path, Path]]:
    """List the pairs of a VOC segmentation set, in `devkit` (VOCdevkit or one year below it); raises ClientError."""
    years = sorted(devkit.glob("VOC*/ImageSets"))
    year = years[-1].parent if years else devkit
    names = year / "ImageSets" / "Segmentation" / f"{_VOC_LISTS[channel]}.txt"
    if not names.is_file():
        raise ClientError(
            f"{names} does not exist. Specify the directory that contains JPEGImages and SegmentationClass."
        )
    stems = names.read_text().split()
    pairs = [(year / "JPEGImages" / f"{stem}.jpg", year / "SegmentationClass" / f"{stem}.png") for stem in stems]
    if missing := [str(path) for pair in pairs for path in pair if not path.is_file()]:
        raise ClientError(f"{names} lists files that do not exist. Extract the archive again.", missing)
    return pairs


def place_pairs(pairs: Iterable[tuple[Path, Path]], data: Path, channel: str) -> list[tuple[Path, Path]]:
    """Create the two directories of a channel below `data`, with hard links, or copies on another file system."""
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
    """Write one JSON line per pair, with absolute paths, or with `s3_prefix` instead of `data`."""
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
    directories = kinds.add_parser("directories", help="write manifests of existing channel directories")
    directories.add_argument(
        "data", type=Path, help="contains train, train_annotation, validation, validation_annotation"
    )
    voc = kinds.add_parser("voc", help="create channels from the VOC segmentation sets, and write manifests")
    voc.add_argument("devkit", type=Path, help="VOCdevkit, or the VOC2012 directory in it")
    voc.add_argument("data", type=Path, help="directory of the channels, for example DIR/input/data")
    for kind in (directories, voc):
        kind.add_argument("--manifests", type=Path, metavar="DIR", help="directory of the manifests (parent of DATA)")
        kind.add_argument("--s3-prefix", metavar="s3://BUCKET/PREFIX", help="location to which you upload DATA")
    arguments = parser.parse_args()
    manifests = arguments.manifests or arguments.data.parent
    try:
        pairs = _read_pairs(arguments)
    except ClientError as error:
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


def _refer(path: Path, data: Path, s3_prefix: str | None) -> str:
    return f"{s3_prefix.rstrip('/')}/{path.relative_to(data)}" if s3_prefix else str(path.absolute())


if __name__ == "__main__":
    main()
