"""Sample sources of a channel: `open_samples` selects File or Pipe mode."""

from __future__ import annotations

import dataclasses
import errno
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from container.arrays import Uint8Array
from container.codecs.images import (
    DecodeError,
    Header,
    Orientation,
    TruncatedImageError,
    Warn,
    decode_annotation,
    decode_deep,
    decode_image,
    decode_reduced,
    read_header,
)
from container.codecs.images_16_bit import count_samples
from container.data.audit.duplicates import digest_pixels
from container.data.audit.statistics import BadSample, PairInfo, bad_annotation
from container.data.labels.channel import read_label_map
from container.data.labels.color_maps import ColorMap, ColorMaps, color_codes
from container.data.labels.label_maps import LabelMap
from container.data.pairing import FileSample, find_pairs
from container.data.pipe import PipeSamples, ShuffleBuffer
from container.environment import Environment
from container.errors import ClientError, JobError, PlatformError
from container.hyperparameters import Hyperparameters
from container.image_range import Range

_MAX_PIXELS = 2**28
_TRANSPARENT = (
    'some pixels are transparent and are read by their color: to ignore them, add "transparent": 255 to the colors of '
    "the label map"
)


class Sample(Protocol):
    """One image with its annotation, still encoded; `name` is what an error calls it."""

    @property
    def name(self) -> str:
        """The image's file, or the channel and record number."""

    @property
    def color_map(self) -> ColorMap | None:
        """What the data says of its classes, if it does."""

    def read(self) -> tuple[bytes, bytes]:
        """Return the encoded image and annotation."""


class Samples(Protocol):
    """The samples of one channel, pass after pass."""

    channel: str
    label_map: LabelMap

    @property
    def color_map(self) -> ColorMap | None:
        """What the data have said of their classes so far."""

    def listed(self) -> Sequence[Sample] | None:
        """Return all samples in the order of their names; None for a stream, which nobody knows beforehand."""

    def epoch(self, rng: np.random.Generator | None, stopped: threading.Event) -> Iterator[Sample]:
        """Make one pass, in random order when `rng` is given; it ends early once `stopped` is set."""


class Decoded(NamedTuple):
    """A pair ready for use: uint8 RGB (H, W, 3), uint8 labels (H, W), how many pixels the label map leaves unnamed."""

    image: Uint8Array
    labels: Uint8Array
    unnamed: int
    seen: PairInfo


class FileSamples:
    """Pairs of files from two directories, listed once."""

    def __init__(self, channel: str, pairs: Sequence[FileSample], label_map: LabelMap) -> None:
        self.channel = channel
        self.label_map = label_map
        self.color_map: ColorMap | None = None
        self.pairs = pairs
        self.count: int | None = len(pairs)

    def __len__(self) -> int:
        return len(self.pairs)

    def listed(self) -> Sequence[Sample]:
        """Return all pairs."""
        return self.pairs

    def epoch(self, rng: np.random.Generator | None, stopped: threading.Event) -> Iterator[Sample]:
        """Go over all pairs once, in the order of their names unless `rng` shuffles them."""
        order = np.arange(len(self.pairs)) if rng is None else rng.permutation(len(self.pairs))
        return (self.pairs[index] for index in order)


def open_samples(
    environment: Environment, channel: str, job: Hyperparameters, color_maps: ColorMaps | None = None
) -> Samples:
    """Open a channel's samples, whichever its input mode; raises ClientError naming channel and remedy.

    `color_maps` collects what the metadata of all channels says of the classes.
    """
    label_map = _label_map(environment, channel)
    label_map.check(job.num_classes)
    images = environment.channels[channel]
    if images.input_mode == "Pipe":
        buffer = ShuffleBuffer(job.shuffle_buffer, job.shuffle_buffer_mb * 2**20)
        return PipeSamples(images, label_map, buffer, environment.pipe_timeout, color_maps, job.num_classes)
    return FileSamples(channel, find_pairs(environment.channels, channel), label_map)


def decode_sample(
    sample: Sample,
    label_map: LabelMap,
    num_classes: int,
    exif_orientation: str = "auto",
    digest: bool = False,
    image_range: Range | None = None,
) -> Decoded:
    """Decode a pair to uint8 RGB (H, W, 3) and uint8 labels (H, W); `image_range` is for 16-bit images.

    `exif_orientation`: "apply" turns the photograph as its EXIF data say, "ignore" keeps it in file order, "auto" turns
    it where only then its size is the annotation's. `digest`: whether what was seen is to hold one of the image's
    pixels. Raises BadSample that names the sample.
    """
    seen, encoded_image, header, turn = _read_pair(sample, label_map, num_classes, exif_orientation)
    notes: list[str] = []
    try:
        image = decode_image(encoded_image, orientation=turn, warn=notes.append, header=header, image_range=image_range)
    except DecodeError as error:
        raise _unreadable(sample, error) from error
    _check_labels(seen, num_classes)
    seen = dataclasses.replace(seen, notes=(*seen.notes, *notes))
    if digest and header.bits == 16:
        seen = _see_deep(seen, encoded_image, header)
    elif digest:  # of the pixels as they are stored
        stored = decode_image(encoded_image, header=header) if turn == "apply" and header.orientation != 1 else image
        seen = dataclasses.replace(seen, digest=digest_pixels(b"R", header.shape(), stored))
    return Decoded(image, seen.reading.image(), seen.reading.ignored, seen)


def examine_sample(sample: Sample, label_map: LabelMap, num_classes: int, exif_orientation: str) -> PairInfo:
    """Find out what `decode_sample` would, at less cost: JPEGs are decoded at an eighth of their size.

    Raises BadSample that names the sample.
    """
    seen, encoded_image, header, _ = _read_pair(sample, label_map, num_classes, exif_orientation)
    notes: list[str] = []
    digest: bytes | None
    try:
        if header.format == "JPEG":
            digest = digest_pixels(b"J", header.shape(), decode_reduced(encoded_image, header, warn=notes.append))
        elif header.bits == 16:
            seen = _see_deep(seen, encoded_image, header, warn=notes.append)
            digest = seen.digest
        else:
            image = decode_image(encoded_image, warn=notes.append, header=header)
            digest = digest_pixels(b"R", header.shape(), image)
    except DecodeError as error:
        raise _unreadable(sample, error) from error
    seen = dataclasses.replace(seen, notes=(*seen.notes, *notes), digest=digest)
    _check_labels(seen, num_classes)
    return seen


def _see_deep(seen: PairInfo, encoded_image: bytes, header: Header, *, warn: Warn | None = None) -> PairInfo:
    """Add what the samples of a 16-bit image show; raises DecodeError."""
    samples = decode_deep(encoded_image, header, warn=warn)
    digest = digest_pixels(b"R", header.shape(), samples)
    return dataclasses.replace(seen, digest=digest, sample_counts=count_samples(samples))


def _read_pair(
    sample: Sample, label_map: LabelMap, num_classes: int, exif_orientation: str
) -> tuple[PairInfo, bytes, Header, Orientation]:
    """Read a pair, but decode its annotation alone; also returns the encoded image, its header and how to turn it."""
    name = sample.name
    notes: list[str] = []
    try:
        encoded_image, encoded_annotation = sample.read()
        header = read_header(encoded_image, _MAX_PIXELS)
    except OSError as error:
        raise _unread(sample, error) from error
    except DecodeError as error:
        raise _unreadable(sample, error) from error
    if encoded_image == encoded_annotation:
        raise BadSample(f"{name} and its annotation are the same file: put the photograph there", "same")
    try:
        annotation = decode_annotation(encoded_annotation, warn=notes.append)
    except DecodeError as error:
        raise bad_annotation(error, name, "unreadable") from error
    if annotation.alpha is not None and not label_map.names_transparent:
        notes.append(_TRANSPARENT)
    turn: Orientation = "apply" if exif_orientation == "apply" else "ignore"
    size = annotation.shape
    if exif_orientation == "auto" and header.shape() != size == header.shape("apply"):
        turn = "apply"
    if header.shape(turn) != size:
        raise _other_size(name, header, turn, size)
    try:
        reading = label_map.interpret(annotation, num_classes, sample.color_map)
    except ClientError as error:
        raise bad_annotation(error, name, "colour") from error
    is_rotated = header.orientation != 1
    seen = PairInfo(
        name,
        *size,
        reading,
        annotation.palette,
        is_turned=is_rotated and turn == "apply",
        is_ambiguous=is_rotated and turn == "ignore" and exif_orientation == "auto" and header.shape("apply") == size,
        notes=tuple(notes),
    )
    return seen, encoded_image, header, turn


def _check_labels(seen: PairInfo, num_classes: int) -> None:
    try:
        seen.reading.check(num_classes)
    except ClientError as error:
        bad = bad_annotation(error, seen.name, "label", seen.reading)
        if seen.palette is not None and np.count_nonzero(seen.reading.counts) == len(seen.palette):
            codes = color_codes(seen.palette)
            bad.wrong_colors = {value: int(codes[value]) for value in bad.wrong if value < len(codes)}
        raise bad from error


def _unread(sample: Sample, error: OSError) -> JobError:
    """Make the error of a file that cannot be read, by whose fault that is."""
    told = f"{error.filename or sample.name} cannot be read: {error.strerror or error}"
    if error.errno == errno.ENOENT:
        return BadSample(f"{told}; leave the data as they are while the job runs", "unreadable")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EISDIR):
        return BadSample(f"{told}; let the job read it", "unreadable")
    return PlatformError(f"{told}; the disk or the storage behind it is at fault")


def _unreadable(sample: Sample, error: DecodeError) -> BadSample:
    return BadSample(f"{sample.name}: {error}; replace or remove it", "unreadable")


def check_headers(sample: FileSample, exif_orientation: str) -> None:
    """Read the headers of both files alone; raises BadSample when one is none, or when their sizes differ."""
    turns: tuple[Orientation, ...] = ("ignore", "apply") if exif_orientation == "auto" else ("ignore",)
    if exif_orientation == "apply":
        turns = ("apply",)
    try:
        image, annotation = (_read_header(path, head) for path, head in sample.read_heads())
        if annotation.shape() not in {image.shape(turn) for turn in turns}:
            image = _read_header(sample.image, sample.read()[0])  # a PNG may tell its orientation at its end
    except OSError as error:
        raise _unread(sample, error) from error
    if annotation.shape() not in {image.shape(turn) for turn in turns}:
        raise _other_size(sample.name, image, turns[-1] if len(turns) == 1 else "ignore", annotation.shape())


def _read_header(path: Path, head: bytes) -> Header:
    """Read a header from a file's first bytes, or from all where texts or profiles stand before it."""
    try:
        try:
            return read_header(head)
        except TruncatedImageError:
            return read_header(path.read_bytes())
    except DecodeError as error:
        raise BadSample(f"{path}: {error}; replace or remove it", "unreadable") from error


def _other_size(name: str, header: Header, turn: Orientation, annotation: tuple[int, int]) -> BadSample:
    height, width = header.shape(turn)
    sizes = f"the image is {width}×{height} but its annotation is {annotation[1]}×{annotation[0]}"
    if header.orientation != 1:
        sizes += f" (its EXIF orientation is {header.orientation}: _exif_orientation decides whether it is turned)"
    return BadSample(f"annotation of {name}: {sizes}", "size")


def _label_map(environment: Environment, channel: str) -> LabelMap:
    return read_label_map(environment.channels, channel)
