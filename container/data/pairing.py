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
from container.errors import ClientError, printable

LOG = logging.getLogger(__name__)

_ANNOTATIONS = (".png",)
_HEAD_BYTES = 4096
_STRAYS = 20  # that get a line of their own
_DATE_DIGITS = 6  # a directory whose name has at least this number of digits can be named after a date
_VERSION = re.compile(r"(?i)(?:^|[^a-z])v(?:er|ersion)?[-_. ]?\d+(?:[-_.]\d+)*$")

Files = dict[PurePath, Path]  # files by their path below the channel, without suffix, in Unicode's form NFC
Skips = dict[PurePath, str]  # the same keys: why the file is skipped


@dataclasses.dataclass(frozen=True)
class FileSample:
    """A pair of files, read when it is its turn."""

    image: Path
    annotation: Path
    color_map: ColorMap | None = None

    @property
    def name(self) -> str:
        """The image's path."""
        return str(self.image)

    def read(self) -> tuple[bytes, bytes]:
        """Read both files; raises OSError that names the one which cannot be read."""
        return _read(self.image), _read(self.annotation)

    def read_annotation(self) -> bytes:
        """Read the annotation alone; raises OSError that names it."""
        return _read(self.annotation)

    def read_heads(self) -> Iterator[tuple[Path, bytes]]:
        """Read the first bytes of both files, which say format and size of nearly every picture."""
        for path in (self.image, self.annotation):
            descriptor = os.open(path, os.O_RDONLY)
            try:
                yield path, os.read(descriptor, _HEAD_BYTES)
            finally:
                os.close(descriptor)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:  # that of a read, unlike that of an open, does not name the file
        raise OSError(error.errno, error.strerror, str(path)) from error


def find_pairs(channels: Mapping[str, Channel], channel: str) -> list[FileSample]:
    """Match the images of `channel` to the annotations of `channel`_annotation, in the order of their names.

    Where the channels have folders in common, files match by their path below the channel, else by their name alone;
    suffixes and Unicode's normal forms do not count. Raises ClientError that says what to do, and lists the
    files concerned. A host may have no file of a sharded channel; of one that is not, only what belongs to its shard
    counts.
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
            f"channel {channel} holds no image: put .jpg, .jpeg or .png files there", list(skips[0].values())
        )
    if not annotations:
        raise ClientError(
            f"channel {annotation} holds no annotation: put .png files there, named like their images",
            list(skips[1].values()),
        )
    trees = (images, annotations), (_below_common_folder(images), _below_common_folder(annotations))
    for some_images, some_annotations in trees:
        if _folders(some_images) & _folders(some_annotations):
            return _match(channel, *_within_shards(some_images, some_annotations, shards), "path", shards, skips)
    named = _by_name(channel, images), _by_name(annotation, annotations)
    pairs = _match(channel, *_within_shards(*named, shards), "name", shards, skips)
    _compare_series(channel, images, annotations)
    return pairs


def _within_shards(images: Files, annotations: Files, shards: tuple[bool, bool]) -> tuple[Files, Files]:
    """Leave out of a channel that every host has whole what belongs to other hosts' shards of the other one."""
    if shards == (True, False):
        annotations = {stem: path for stem, path in annotations.items() if stem in images}
    elif shards == (False, True):
        images = {stem: path for stem, path in images.items() if stem in annotations}
    return images, annotations


def _own_files(channels: Mapping[str, Channel], channel: str, suffixes: tuple[str, ...]) -> tuple[Files, Skips]:
    """List the channel's images or annotations, without what another channel's S3 prefix has brought along.

    Also returns the files that are skipped because of their kind.
    """
    folder = channels[channel].path
    if channels[channel].sharded and not folder.is_dir():
        return {}, {}  # there are more hosts than files
    own: list[Path] = []
    strays: list[Path] = []
    for path in _walk(folder):
        (own if _is_picture(path.relative_to(folder), suffixes) and path.is_file() else strays).append(path)
    foreign = _foreign_folders(channels, channel, own)
    kept = [path for path in own if path.relative_to(folder).parts[0] not in foreign]
    if foreign and kept:
        LOG.warning(
            "channel %s: %d files in %s are another channel's and are passed over: an S3 prefix without a final slash "
            "matches them too; end the channel's S3Uri with one (s3://…/%s/)",
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
                f"channel {channel}: rename or remove one of two files of the same name; photographs and masks belong "
                "into two folders",
                [str(path), str(files[stem])],
            )
        files[stem] = path
    _tell_strays(strays)
    visible = [path for path in strays if not any(part.startswith(".") for part in path.relative_to(folder).parts)]
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
    """Tell which folders at the channel's top are another channel's.

    An S3 prefix is a string: `s3://b/train` also matches `s3://b/train_annotation/…`, whose files then lie in the
    folder `train_annotation` on the platform, and in `_annotation` in the SDK's local mode. A folder of another name is
    foreign when it holds over again the files of the channel that is called so, or of the channel's own annotations.
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
            if _holds_over_again(folder / top, tops[top], channels[name].path, unlike):
                foreign = foreign | {top}
    return foreign


def _holds_over_again(folder: Path, files: list[Path], other: Path, unlike: AbstractSet[str]) -> bool:
    """Say whether all `files` of `folder` lie below `other` too, in whatever folder of it that is none of `unlike`."""
    ends: dict[tuple[tuple[str, ...], int], Path] = {}  # paths by all their ends and the file's size
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
    """List all files below `folder` in the order of their names, following links that do not lead in a circle."""
    found: list[Path] = []
    try:
        status = folder.stat()
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise ClientError(f"{folder} cannot be read ({error.strerror}): let the job read it") from error
    within = above | {(status.st_dev, status.st_ino)}
    for path in entries:
        if not path.is_dir():
            found.append(path)
        elif (linked := path.stat()) and (linked.st_dev, linked.st_ino) not in within:
            found += _walk(path, within)
    return found


def _is_picture(relative: PurePath, suffixes: tuple[str, ...]) -> bool:
    return relative.suffix.lower() in suffixes and not any(part.startswith(".") for part in relative.parts)


def _tell_strays(paths: list[Path]) -> None:
    """Warn of files of other kinds, as the built-in does."""
    for path in paths[:_STRAYS]:
        if path.is_symlink() and not path.exists():
            link = printable(str(path)), printable(os.readlink(path))
            LOG.warning("%s is not a readable image file: it is a broken link to %s", *link)
        else:
            LOG.warning("%s is not a readable image file", printable(str(path)))
    if paths[_STRAYS:]:
        LOG.warning("and %d more files are none, in %s", len(paths) - _STRAYS, printable(str(paths[0].parent)))


def _folders(files: Iterable[PurePath]) -> set[PurePath]:
    return {path.parent for path in files} - {PurePath()}


def _below_common_folder(files: Files) -> Files:
    """Leave out the folders that all files share."""
    common = os.path.commonpath([f"/{path.parent}" for path in files])[1:]
    return {path.relative_to(common): file for path, file in files.items()}


def _by_name(channel: str, files: Files) -> Files:
    names: Files = {}
    for relative, path in files.items():
        name = PurePath(relative.name)
        if name in names:
            raise ClientError(
                f"channel {channel} has two files of one name in different folders, and the folders of images and "
                "annotations have nothing in common: use the same folders in both, or a name of its own for each file",
                [str(names[name]), str(path)],
            )
        names[name] = path
    return names


def _compare_series(channel: str, images: Files, annotations: Files) -> None:
    """Reject pairs from directories that differ in their numbers only: these are two parts of one series.

    If the difference can be correct, this is a warning.
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
        f"channel {channel}: the images are in {_list_names(different[0])} but their annotations are in "
        f"{_list_names(different[1])}, and only the file names match. These {'can be' if can_differ else 'look like'} "
        "different parts of one series. If the files belong together, give both directories the same name. If not, "
        "correct the S3 prefix of a channel"
    )
    if not can_differ:
        raise ClientError(message)
    LOG.warning("%s", printable(message))


def _can_differ(name: str) -> bool:
    """Return whether a name is a number, ends in a version as in `data_v2`, or contains a date."""
    letters, digits = re.findall(r"[^\W\d_]", name), re.findall(r"\d", name)
    return len(letters) < 2 or len(digits) >= _DATE_DIGITS or _VERSION.search(name) is not None


def _list_names(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if names[3:] else "")


def _match(
    channel: str,
    images: Files,
    annotations: Files,
    key: str,
    shards: tuple[bool, bool],
    skips: tuple[Skips, Skips] = ({}, {}),
) -> list[FileSample]:
    lonely_images = [images[stem] for stem in sorted(images.keys() - annotations.keys())]
    lonely_annotations = [annotations[stem] for stem in sorted(annotations.keys() - images.keys())]
    if not lonely_images and not lonely_annotations:
        return [FileSample(images[stem], annotations[stem]) for stem in sorted(images)]
    remedy = (
        _backslashes([*lonely_images, *lonely_annotations])
        or _common_endings(images, annotations)
        or f"each image needs a .png annotation of the same {key}, whatever its suffix; add or remove files"
    )
    if all(shards):
        remedy = (
            "with ShardedByS3Key images and annotations are dealt out to the hosts each on its own, which tears pairs: "
            f"stream an augmented manifest in Pipe mode, or set S3DataDistributionType of {channel}_annotation to "
            "FullyReplicated"
        )
    raise ClientError(
        f"channel {channel} and its annotations do not match ({len(lonely_images)} of {len(images)} images and "
        f"{len(lonely_annotations)} of {len(annotations)} annotations are without the other): {remedy}",
        [f"{path} has no annotation{_skipped(path, skips[1])}" for path in lonely_images]
        + [f"{path} has no image{_skipped(path, skips[0])}" for path in lonely_annotations],
    )


def _skipped(path: Path, skips: Skips) -> str:
    """Name the skipped file of the other channel that has the file's name."""
    name = unicodedata.normalize("NFC", path.stem)
    return next((f": {reason}" for stem, reason in skips.items() if stem.name == name), "")


def _backslashes(paths: list[Path]) -> str | None:
    """Explain file names that contain the directories of Windows."""
    example = next((path.name for path in paths if "\\" in path.name), None)
    return example and (
        f"file names contain backslashes ({example}), because a program on Windows packed them. Replace each backslash "
        "by a directory, or remove the part before it"
    )


def _common_endings(images: Files, annotations: Files) -> str | None:
    """Say by which endings all names differ, as in Cityscapes' `_leftImg8bit` and `_gtFine_labelIds`."""
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
    told = [f"the names of the {kind} end in {text}" for kind, text in texts.items() if text]
    return f"{' and '.join(told)}: rename them without it"


def _common_ending(files: Files) -> list[str]:
    """Return the last parts (`_gtFine`, `_labelIds`) that all names have in common, the first part never."""
    names = [re.findall(r"[-_. ]*[^-_. ]*", path.name) for path in files]
    common: list[str] = []
    for parts in zip(*(reversed([part for part in name if part][1:]) for name in names), strict=False):
        if len(set(parts)) > 1:
            break
        common.insert(0, parts[0])
    return common
