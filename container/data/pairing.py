"""Matching of images and annotations by path."""

from __future__ import annotations

import dataclasses
import filecmp
import logging
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path, PurePath

from container.codecs.images import IMAGE_SUFFIXES
from container.data.labels.color_maps import ColorMap
from container.environment import Channel
from container.errors import ClientError, printable, shorten_list

LOG = logging.getLogger(__name__)

_ANNOTATIONS = (".png",)
_HEAD_BYTES = 4096
_MOST_SKIPPED = 20  # skipped files with a separate log line
_DATE_DIGITS = 6  # a directory whose name has at least this number of digits can be named after a date
_VERSION = re.compile(r"(?i)(?:^|[^a-z])v(?:er|ersion)?[-_. ]?\d+(?:[-_.]\d+)*$")

Files = dict[PurePath, Path]  # files by their path in the channel, without suffix, in Unicode normal form NFC
Skips = dict[PurePath, str]  # reasons for skipped files, by the same keys


@dataclasses.dataclass(frozen=True)
class FileSample:
    """A pair of files."""

    image: Path
    annotation: Path
    color_map: ColorMap | None = None

    @property
    def name(self) -> str:
        """Path of the image."""
        return str(self.image)

    def read(self) -> tuple[bytes, bytes]:
        """Read both files; raises OSError with the path of the file that cannot be read."""
        return _read(self.image), _read(self.annotation)

    def read_annotation(self) -> bytes:
        """Read only the annotation; raises OSError with its path."""
        return _read(self.annotation)

    def read_heads(self) -> Iterator[tuple[Path, bytes]]:
        """Read the first bytes of both files, which contain the header of almost every image."""
        for path in (self.image, self.annotation):
            descriptor = os.open(path, os.O_RDONLY)
            try:
                yield path, os.read(descriptor, _HEAD_BYTES)
            finally:
                os.close(descriptor)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:  # an error of read does not contain the path
        raise OSError(error.errno, error.strerror, str(path)) from error


def find_pairs(channels: Mapping[str, Channel], channel: str) -> list[FileSample]:
    """Match the images of `channel` with the annotations of `channel`_annotation, in the order of their names.

    If the channels have directories in common, files match by their path in the channel. Otherwise, they match by their
    name. Suffixes and Unicode normal forms do not count. Raises ClientError that contains the files and a fix. A host
    can have no files of a sharded channel. If only one of the two channels is sharded, other files of the other channel
    do not count.
    """
    annotation = f"{channel}_annotation"
    images, skipped_images = _own_files(channels, channel, IMAGE_SUFFIXES)
    annotations, skipped_annotations = _own_files(channels, annotation, _ANNOTATIONS)
    skips = skipped_images, skipped_annotations
    shards = channels[channel].sharded, channels[annotation].sharded
    if (not images and shards[0]) or (not annotations and shards[1]):
        images, annotations = _within_shards(images, annotations, shards)
        return _match(channel, images, annotations, "path", shards, skips)
    if not images:
        raise ClientError(
            f"channel {channel} contains no images. Add .jpg, .jpeg, or .png files", list(skips[0].values())
        )
    if not annotations:
        raise ClientError(
            f"channel {annotation} contains no annotations. Add .png files with the names of their images",
            list(skips[1].values()),
        )
    trees = (images, annotations), (_below_common_folder(images), _below_common_folder(annotations))
    for some_images, some_annotations in trees:
        if _folders(some_images) & _folders(some_annotations):
            return _match(channel, *_within_shards(some_images, some_annotations, shards), "path", shards, skips)
    named = _index_by_name(channel, images), _index_by_name(annotation, annotations)
    pairs = _match(channel, *_within_shards(*named, shards), "name", shards, skips)
    _compare_series(channel, images, annotations)
    return pairs


def _within_shards(images: Files, annotations: Files, shards: tuple[bool, bool]) -> tuple[Files, Files]:
    """If only one channel is sharded, exclude the files of the other channel that belong to other hosts."""
    if shards == (True, False):
        annotations = {stem: path for stem, path in annotations.items() if stem in images}
    elif shards == (False, True):
        images = {stem: path for stem, path in images.items() if stem in annotations}
    return images, annotations


def _own_files(channels: Mapping[str, Channel], channel: str, suffixes: tuple[str, ...]) -> tuple[Files, Skips]:
    """Return the images or annotations of the channel, without files that belong to the S3 prefix of another channel.

    Also returns the reasons for skipped files of other kinds.
    """
    folder = channels[channel].path
    if channels[channel].sharded and not folder.is_dir():
        return {}, {}  # there are more hosts than files
    own: list[Path] = []
    others: list[Path] = []
    for path in _walk(folder):
        (own if _is_image(path.relative_to(folder), suffixes) and path.is_file() else others).append(path)
    foreign = _foreign_folders(channels, channel, own)
    kept = [path for path in own if path.relative_to(folder).parts[0] not in foreign]
    if foreign and kept:
        LOG.warning(
            "channel %s: %d files in %s belong to another channel and are skipped. An S3 prefix without a slash at its "
            "end also matches these files. Add a slash to the S3Uri of the channel (s3://…/%s/)",
            channel,
            len(own) - len(kept),
            ", ".join(f"{channel}/{printable(top)}" for top in sorted(foreign)),
            channel,
        )
    files: Files = {}
    for path in kept or own:
        stem = _stem(path, folder)
        if stem in files:
            raise ClientError(
                f"channel {channel} contains two files with the same name. Rename or remove one of them. Images and "
                "annotations need separate directories",
                [str(path), str(files[stem])],
            )
        files[stem] = path
    _log_skipped_files(others)
    visible = [path for path in others if not any(part.startswith(".") for part in path.relative_to(folder).parts)]
    return files, {_stem(path, folder): _skip_reason(path, suffixes) for path in visible}


def _stem(path: Path, folder: Path) -> PurePath:
    return PurePath(unicodedata.normalize("NFC", str(path.relative_to(folder).with_suffix(""))))


def _skip_reason(path: Path, suffixes: tuple[str, ...]) -> str:
    """Explain why a file of a channel is skipped."""
    if path.is_symlink() and not path.exists():
        return f"{path} is skipped: it is a broken link to {os.readlink(path)}"
    if path.suffix.lower() not in suffixes:
        return f"{path} is skipped: it is not a {', '.join(suffixes)} file"
    return f"{path} is skipped: it is not a regular file"


def _foreign_folders(channels: Mapping[str, Channel], channel: str, files: list[Path]) -> set[str]:
    """Return the top-level directories of the channel that belong to another channel.

    An S3 prefix is a string: `s3://b/train` also matches `s3://b/train_annotation/…`. Its files are then in the
    directory `train_annotation` in SageMaker AI, and in `_annotation` in the local mode of the SDK. A directory with
    another name belongs to another channel if it contains the same files as the channel with this name, or as the
    annotations of the channel.
    """
    names = {name for name in channels if name != channel and name.startswith(channel)}
    names |= {name.removeprefix(channel) for name in names}
    folder = channels[channel].path
    tops: dict[str, list[Path]] = {}
    for path in files:
        top, *below = path.relative_to(folder).parts
        if below:
            tops.setdefault(top, []).append(path)
    foreign = tops.keys() & names
    for top in tops.keys() - foreign - {channel}:
        name = top if top in channels else f"{channel}_annotation"
        if name in channels and channels[name].path.is_dir():
            unlike = channels.keys() - {name}
            if _is_copy(folder / top, tops[top], channels[name].path, unlike):
                foreign = foreign | {top}
    return foreign


def _is_copy(folder: Path, files: list[Path], other: Path, unlike: AbstractSet[str]) -> bool:
    """Return whether `other` also contains all `files` of `folder`, in any directory that is not in `unlike`."""
    ends: dict[tuple[tuple[str, ...], int], Path] = {}  # paths by each ending of their parts, and file size
    for path in _walk(other):
        parts = path.relative_to(other).parts
        if parts[0] not in unlike and path.is_file():
            size = path.stat().st_size
            ends.update({(parts[start:], size): path for start in range(len(parts))})
    twins = [(path, ends.get((path.relative_to(folder).parts, path.stat().st_size))) for path in files]
    return all(twin is not None for _, twin in twins) and all(
        twin is not None and filecmp.cmp(path, twin, shallow=False) for path, twin in twins
    )


def _walk(folder: Path, above: frozenset[tuple[int, int]] = frozenset()) -> list[Path]:
    """Return all files in `folder`, sorted by name; links are followed, except for circular ones."""
    found: list[Path] = []
    try:
        status = folder.stat()
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise ClientError(
            f"{folder} cannot be read: {error.strerror}. Make sure that the job has permission to read it"
        ) from error
    within = above | {(status.st_dev, status.st_ino)}
    for path in entries:
        if not path.is_dir():
            found.append(path)
        elif (linked := path.stat()) and (linked.st_dev, linked.st_ino) not in within:
            found += _walk(path, within)
    return found


def _is_image(relative: PurePath, suffixes: tuple[str, ...]) -> bool:
    return relative.suffix.lower() in suffixes and not any(part.startswith(".") for part in relative.parts)


def _log_skipped_files(paths: list[Path]) -> None:
    """Log a warning for files of other kinds, as the built-in algorithm does."""
    for path in paths[:_MOST_SKIPPED]:
        if path.is_symlink() and not path.exists():
            link = printable(str(path)), printable(os.readlink(path))
            LOG.warning("%s is not a readable image file: it is a broken link to %s", *link)
        else:
            LOG.warning("%s is not a readable image file", printable(str(path)))
    if paths[_MOST_SKIPPED:]:
        LOG.warning(
            "%d more files in %s are not readable image files",
            len(paths) - _MOST_SKIPPED,
            printable(str(paths[0].parent)),
        )


def _folders(files: Iterable[PurePath]) -> set[PurePath]:
    return {path.parent for path in files} - {PurePath()}


def _below_common_folder(files: Files) -> Files:
    """Remove the directories that are common to all paths."""
    common = os.path.commonpath([f"/{path.parent}" for path in files])[1:]
    return {path.relative_to(common): file for path, file in files.items()}


def _index_by_name(channel: str, files: Files) -> Files:
    names: Files = {}
    for relative, path in files.items():
        name = PurePath(relative.name)
        if name in names:
            raise ClientError(
                f"channel {channel} contains two files with the same name in different directories, and images and "
                "annotations have no directories in common. Use the same directories for images and annotations, or "
                "different file names",
                [str(names[name]), str(path)],
            )
        names[name] = path
    return names


def _compare_series(channel: str, images: Files, annotations: Files) -> None:
    """Raise ClientError if directories differ only in their numbers, because these are two parts of one series.

    If the difference can be correct, log a warning.
    """
    names = [{part for path in _folders(files) for part in path.parts} for files in (images, annotations)]
    different = [
        sorted(name for name in some - others if re.search(r"\d", name)) for some, others in (names, names[::-1])
    ]
    series = [{re.sub(r"\d+", "#", name) for name in some} for some in different]
    if not series[0] or series[0] != series[1]:
        return
    can_differ = any(_can_differ(name) for some in different for name in some)
    message = (
        f"channel {channel}: the images are in {shorten_list(different[0], 3)} but their annotations are in "
        f"{shorten_list(different[1], 3)}, and only the file names match. These "
        f"{'can be' if can_differ else 'look like'} different parts of one series. If the files belong "
        "together, give both directories the same name. If not, correct the S3 prefix of a channel"
    )
    if not can_differ:
        raise ClientError(message)
    LOG.warning("%s", printable(message))


def _can_differ(name: str) -> bool:
    """Return whether a name is a number, ends in a version as in `data_v2`, or contains a date."""
    letters, digits = re.findall(r"[^\W\d_]", name), re.findall(r"\d", name)
    return len(letters) < 2 or len(digits) >= _DATE_DIGITS or _VERSION.search(name) is not None


def _match(
    channel: str,
    images: Files,
    annotations: Files,
    key: str,
    shards: tuple[bool, bool],
    skips: tuple[Skips, Skips] = ({}, {}),
) -> list[FileSample]:
    unmatched_images = [images[stem] for stem in sorted(images.keys() - annotations.keys())]
    unmatched_annotations = [annotations[stem] for stem in sorted(annotations.keys() - images.keys())]
    if not unmatched_images and not unmatched_annotations:
        return [FileSample(images[stem], annotations[stem]) for stem in sorted(images)]
    remedy = (
        _explain_backslashes([*unmatched_images, *unmatched_annotations])
        or _explain_endings(images, annotations)
        or f"Each image needs a .png annotation with the same {key} (extensions can differ). Add or remove files"
    )
    if all(shards):
        remedy = (
            "With ShardedByS3Key, SageMaker AI distributes images and annotations separately, so pairs are split. "
            "Use an augmented manifest in Pipe mode, or set S3DataDistributionType of "
            f"{channel}_annotation to FullyReplicated"
        )
    raise ClientError(
        f"channel {channel} and its annotations do not match. {len(unmatched_images)} of {len(images)} images and "
        f"{len(unmatched_annotations)} of {len(annotations)} annotations have no partner. {remedy}",
        [f"{path} has no annotation{_skipped(path, skips[1])}" for path in unmatched_images]
        + [f"{path} has no image{_skipped(path, skips[0])}" for path in unmatched_annotations],
    )


def _skipped(path: Path, skips: Skips) -> str:
    """Return the reason if the other channel has a skipped file with the same name."""
    name = unicodedata.normalize("NFC", path.stem)
    return next((f": {reason}" for stem, reason in skips.items() if stem.name == name), "")


def _explain_backslashes(paths: list[Path]) -> str | None:
    """Explain file names that contain the directories of Windows."""
    example = next((path.name for path in paths if "\\" in path.name), None)
    return example and (
        f"File names contain backslashes ({example}), because a program on Windows created the archive. Replace each "
        "backslash by a directory, or remove the part before it"
    )


def _explain_endings(images: Files, annotations: Files) -> str | None:
    """Explain different endings of all names, such as `_leftImg8bit` and `_gtFine_labelIds` in Cityscapes."""
    endings = {"images": _common_ending(images), "annotations": _common_ending(annotations)}
    while all(endings.values()) and len({ending[0] for ending in endings.values()}) == 1:
        endings = {kind: ending[1:] for kind, ending in endings.items()}
    texts = {kind: "".join(ending) for kind, ending in endings.items()}
    cut = [
        {str(path).removesuffix(texts[kind]) for path in files}
        for kind, files in zip(texts, (images, annotations), strict=True)
    ]
    if not any(texts.values()) or not cut[0] & cut[1]:
        return None
    parts = [f"the names of the {kind} end in {text}" for kind, text in texts.items() if text]
    sentence = " and ".join(parts)
    return f"{sentence[0].upper()}{sentence[1:]}. Rename the files without these endings"


def _common_ending(files: Files) -> list[str]:
    """Return the last parts (`_gtFine`, `_labelIds`) that all names have in common, without the first part."""
    names = [re.findall(r"[-_. ]*[^-_. ]*", path.name) for path in files]
    common: list[str] = []
    for parts in zip(*(reversed([part for part in name if part][1:]) for name in names), strict=False):
        if len(set(parts)) > 1:
            break
        common.insert(0, parts[0])
    return common
