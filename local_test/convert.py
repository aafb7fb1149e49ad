"""Converts data sets and label formats to channels, and channels to augmented manifests."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from container.codecs.images import IMAGE_SUFFIXES
from container.data.pairing import find_pairs
from container.environment import Channel
from container.errors import ClientError
from local_test.formats.channels import link, place_labels, place_pairs, write_label_map
from local_test.formats.coco import read_coco
from local_test.formats.cvat import read_cvat
from local_test.formats.ground_truth import read_ground_truth
from local_test.formats.label_studio import read_label_studio
from local_test.formats.labelme import read_labelme
from local_test.formats.layouts import Layout, read_ade20k, read_camvid, read_cityscapes, read_voc
from local_test.formats.regions import Dataset, FormatError, Notes, draw
from local_test.formats.split import choose_validation, group_images, values_of
from local_test.manifest import ManifestError, split_mapping

CHANNELS = ("train", "validation")
_LAYOUTS = {"voc": read_voc, "cityscapes": read_cityscapes, "ade20k": read_ade20k, "camvid": read_camvid}
_READERS: dict[str, Callable[..., Dataset]] = {
    "coco": read_coco,
    "labelme": read_labelme,
    "cvat": read_cvat,
    "labelstudio": read_label_studio,
}


def pair_directories(data: Path, channel: str) -> list[tuple[Path, Path]]:
    """Match the images of `channel` with the annotations of `channel`_annotation as a job does; raises ClientError."""
    channels = {name: Channel(name, data / name) for each in CHANNELS for name in (each, f"{each}_annotation")}
    for name in (channel, f"{channel}_annotation"):
        if not channels[name].path.is_dir():
            raise ClientError(f"The directory {channels[name].path} does not exist. Specify the directory above it.")
    return [(sample.image, sample.annotation) for sample in find_pairs(channels, channel)]


def write_manifest(path: Path, pairs: Iterable[tuple[Path, Path]], data: Path, s3_prefix: str | None) -> None:
    """Write one JSON line per pair, with absolute paths or with `s3_prefix` in place of `data`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [
        json.dumps({"source-ref": _refer(image, data, s3_prefix), "annotation-ref": _refer(label, data, s3_prefix)})
        for image, label in pairs
    ]
    path.write_text("\n".join(lines) + "\n", "utf-8")


def convert_layout(layout: Layout, data: Path) -> dict[str, list[tuple[Path, Path]]]:
    """Fill the channels from a data set's own sets of files."""
    placed = {}
    for channel, pairs in layout.pairs.items():
        write_label_map(data, channel, layout.label_map)
        placed[channel] = place_pairs(pairs, data, channel)
    print(f"num_classes={len(layout.label_map['names'])}")
    return placed


def convert_dataset(dataset: Dataset, images: Path, data: Path, channel: str, notes: Notes) -> list[tuple[Path, Path]]:
    """Draw the annotations into masks, and fill a channel with them. Class 0 is the background.

    If the training channel has a label map, its class IDs apply. Raises FormatError.
    """
    names = ["background", *(name for name in dataset.names if name != "background")]
    known = data / "label_map" / "train_label_map.json"
    if channel != "train" and known.is_file():
        names = list(json.loads(known.read_text("utf-8"))["names"].values())
        if unknown := sorted(set(dataset.names) - set(names)):
            raise FormatError(
                f"{known} does not contain the classes {', '.join(unknown)}. Convert the images in one run."
            )
    ids = {name: label for label, name in enumerate(names)}
    drawn = ((_name(image.path, images), image.path, draw(image, ids, notes)) for image in dataset.images)
    placed = place_labels(drawn, data, channel)
    write_label_map(data, channel, {"scale": 1, "names": {str(label): name for label, name in enumerate(names)}})
    print(f"num_classes={len(names)}")
    return placed


def split_channel(data: Path, share: float) -> tuple[int, int]:
    """Move about `share` of the pairs of `train` to `validation`; returns the number of pairs of both.

    The choice is stratified by class and always the same for the same data. Images with equal pixels stay together.
    Raises FormatError if validation contains images.
    """
    if any(path.is_file() and not path.name.startswith(".") for path in (data / "validation").rglob("*")):
        raise FormatError(f"{data / 'validation'} contains files. Remove them, or do not split.")
    pairs = pair_directories(data, "train")
    groups = group_images(pairs)
    chosen = choose_validation({key: values_of(group) for key, group in groups.items()}, share)
    if not chosen or len(chosen) == len(groups):
        raise FormatError(
            f"{data / 'train'} has {len(groups)} different images: too few for --validation {share}. Use another value."
        )
    moved = sorted(pair for key in chosen for pair in groups[key])
    for pair in moved:
        for path, channel in zip(pair, ("train", "train_annotation"), strict=True):
            target = data / channel.replace("train", "validation") / path.relative_to(data / channel)
            target.parent.mkdir(parents=True, exist_ok=True)
            path.rename(target)
    label_map = data / "label_map" / "train_label_map.json"
    if label_map.is_file():
        link(label_map, data / "label_map" / "validation_label_map.json")
    return len(pairs) - len(moved), len(moved)


def main() -> None:
    """Convert one data set."""
    arguments = _parse()
    try:
        _convert(arguments)
    except (ClientError, FormatError, ManifestError) as error:
        sys.exit(f"convert: {error}")
    except OSError as error:
        sys.exit(f"convert: {error}. Make sure that the file is readable, and that you can write to {arguments.data}.")
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        problem = f"{type(error).__name__}: {error}"
        sys.exit(f"convert: {arguments.source} is not valid for {arguments.kind} ({problem}). Export it again.")


def _convert(arguments: argparse.Namespace) -> None:
    kind, data, notes = arguments.kind, arguments.data, Notes()
    if kind == "directories":
        _write_manifests(arguments, {channel: pair_directories(data, channel) for channel in CHANNELS})
    elif kind == "split":
        train, validation = split_channel(data, arguments.validation)
        print(f"train: {train} pairs, validation: {validation} pairs")
    elif kind in _LAYOUTS:
        _write_manifests(arguments, convert_layout(_LAYOUTS[kind](arguments.source), data))
    elif kind == "groundtruth":
        names, samples = read_ground_truth(arguments.source, dict(map(split_mapping, arguments.map)), notes)
        placed = place_labels(((path.stem, path, labels) for path, labels in samples), data, arguments.channel)
        write_label_map(data, arguments.channel, {"scale": 1, "names": {str(key): names[key] for key in sorted(names)}})
        _report(data / arguments.channel, placed, notes)
    else:
        images = arguments.source if kind == "labelme" else arguments.images
        reader = _READERS[kind]
        dataset = reader(arguments.source, notes) if kind == "labelme" else reader(arguments.source, images, notes)
        _report(data / arguments.channel, convert_dataset(dataset, images, data, arguments.channel, notes), notes)


def _report(channel: Path, placed: Sequence[tuple[Path, Path]], notes: Notes) -> None:
    print(f"{channel.name}: {len(placed)} pairs", *notes.lines(), sep="\n")
    images = {path for path in channel.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES}
    if others := images - {image for image, _ in placed}:
        print(f"{channel} also contains {len(others)} other images, such as {min(others)}. Remove older ones.")


def _write_manifests(arguments: argparse.Namespace, pairs: Mapping[str, list[tuple[Path, Path]]]) -> None:
    for channel, listed in pairs.items():
        path = (arguments.manifests or arguments.data.parent) / f"{channel}.manifest"
        write_manifest(path, listed, arguments.data, arguments.s3_prefix)
        print(f"{path}: {len(listed)} pairs")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m local_test.convert", description=__doc__)
    kinds = parser.add_subparsers(dest="kind", required=True)

    def add(kind: str, text: str, *positional: tuple[str, str]) -> argparse.ArgumentParser:
        command = kinds.add_parser(kind, help=text)
        for name, meaning in (*positional, ("data", "the directory of the channels, such as DIR/input/data")):
            command.add_argument(name, type=Path, help=meaning)
        return command

    with_manifests = [add("directories", "write manifests for existing channels")]
    for kind, title in (
        ("voc", "Pascal VOC"),
        ("cityscapes", "Cityscapes"),
        ("ade20k", "ADE20K"),
        ("camvid", "CamVid"),
    ):
        with_manifests.append(add(kind, f"fill the channels from {title}", ("source", "the unpacked data set")))
    for command in with_manifests:
        command.add_argument("--manifests", type=Path, metavar="DIR", help="where to write manifests (DATA's parent)")
        command.add_argument("--s3-prefix", metavar="s3://BUCKET/PREFIX", help="where you will upload DATA")
    images = ("images", "the directory of the images")
    for kind, title, *positional in (
        ("coco", "COCO (polygons or RLE)", ("source", "the JSON file"), images),
        ("labelme", "LabelMe", ("source", "the directory of the JSON files and images")),
        ("cvat", "CVAT for images 1.1", ("source", "annotations.xml"), images),
        ("labelstudio", "Label Studio (brush strokes or polygons)", ("source", "the JSON export"), images),
        ("groundtruth", "SageMaker Ground Truth", ("source", "the output manifest")),
    ):
        command = add(kind, f"fill a channel from {title}", *positional)
        command.add_argument("--channel", choices=(*CHANNELS, "test"), default="train", help="(train)")
        if kind == "groundtruth":
            command.add_argument(
                "--map", action="append", default=[], metavar="s3://BUCKET/PREFIX=DIR", help="where its files are"
            )
    split = add("split", "move a part of train to validation, stratified by class")
    split.add_argument("--validation", type=_share, required=True, metavar="SHARE", help="such as 0.2")
    return parser.parse_args()


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = 0
    if not 0 < share < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number between 0 and 1, such as 0.2")
    return share


def _name(image: Path, images: Path) -> str:
    """Return the name of an image without its suffix, with the directories below `images`."""
    is_below = image.is_relative_to(images) and ".." not in image.parts
    return image.relative_to(images).with_suffix("").as_posix() if is_below else image.stem


def _refer(path: Path, data: Path, s3_prefix: str | None) -> str:
    return f"{s3_prefix.rstrip('/')}/{path.relative_to(data)}" if s3_prefix else str(path.absolute())


if __name__ == "__main__":
    main()
