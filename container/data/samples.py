"""Where samples come from: the channels, checked by name before anything is decoded."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from container.codecs.images import DecodeError, Orientation, decode_annotation, decode_image, read_header
from container.data.colours import ColourMap, ColourMaps
from container.data.findings import BadSample, Seen, bad_annotation, digest_pixels
from container.data.label_maps import read_label_map
from container.data.labels import LabelMap
from container.data.pairing import FileSample, find_pairs
from container.data.pipe import PipeSamples, ShuffleBuffer
from container.environment import Channel, Environment
from container.errors import ClientError
from container.hyperparameters import Hyperparameters

# What the platform knows of a channel's content decides nothing here: files and records are told by their bytes. So
# `application/octet-stream`, which S3 and the SDKs write where nobody said more, does no harm.
_ANY = ("application/octet-stream", "binary/octet-stream")
_CONTENT_TYPES = ("application/x-image", "image/jpeg", "image/jpg", "image/png", "application/x-recordio", *_ANY)
_MODEL_TYPES = ("application/x-sagemaker-model", "application/x-tar", "application/gzip", "application/x-gzip", *_ANY)


class Sample(Protocol):
    """One image with its annotation, still encoded; `name` is what an error calls it."""

    @property
    def name(self) -> str:
        """The image's file, or the channel and record number."""

    @property
    def colour_map(self) -> ColourMap | None:
        """What the data says of its classes, if it does."""

    def read(self) -> tuple[bytes, bytes]:
        """Return the encoded image and annotation."""


class Samples(Protocol):
    """The samples of one channel, pass after pass."""

    channel: str
    label_map: LabelMap

    @property
    def colour_map(self) -> ColourMap | None:
        """What the data have said of their classes so far."""

    def epoch(self, rng: np.random.Generator | None, stopped: threading.Event) -> Iterator[Sample]:
        """Make one pass, in random order when `rng` is given; it ends early once `stopped` is set."""


class Decoded(NamedTuple):
    """A pair ready for use: uint8 RGB (H, W, 3), uint8 labels (H, W), how many pixels the label map leaves unnamed."""

    image: np.ndarray
    labels: np.ndarray
    unnamed: int
    seen: Seen


class FileSamples:
    """Pairs of files from two directories, listed once."""

    def __init__(self, channel: str, pairs: Sequence[FileSample], label_map: LabelMap) -> None:
        self.channel = channel
        self.label_map = label_map
        self.colour_map: ColourMap | None = None
        self.pairs = pairs

    def __len__(self) -> int:
        return len(self.pairs)

    def epoch(self, rng: np.random.Generator | None, stopped: threading.Event) -> Iterator[Sample]:
        """Go over all pairs once, in the order of their names unless `rng` shuffles them."""
        order = np.arange(len(self.pairs)) if rng is None else rng.permutation(len(self.pairs))
        return (self.pairs[index] for index in order)


def check_channels(environment: Environment) -> None:
    """Raise one ClientError that lists every channel that is missing or of an unsupported kind; warn of unused ones."""
    faults: list[str] = []
    for name in ("train", "validation"):
        faults += _missing(environment, name)
    if "test" in environment.channels:
        faults += _missing(environment, "test")
    for channel in environment.channels.values():
        content_type = (channel.content_type or "").split(";")[0].strip().lower()
        accepted = _MODEL_TYPES if channel.name == "model" else _CONTENT_TYPES
        if channel.name == "model" and channel.input_mode == "Pipe":
            faults.append("channel model is in Pipe mode, but an archive is a file: set its TrainingInputMode to File")
        elif channel.name == "model" and not channel.path.is_dir():
            faults.append(f"channel model has no directory {channel.path}")
        if content_type and channel.name != "label_map" and content_type not in accepted:
            faults.append(f"channel {channel.name} has ContentType {channel.content_type}; use {' or '.join(accepted)}")
    if faults:
        raise ClientError("the input channels are not complete", faults)


def open_samples(
    environment: Environment, channel: str, job: Hyperparameters, colour_maps: ColourMaps | None = None
) -> Samples:
    """Open a channel's samples, whichever its input mode; raises ClientError naming channel and remedy.

    `colour_maps` collects what the metadata of all channels says of the classes.
    """
    label_map = _label_map(environment, channel)
    label_map.check(job.num_classes)
    images = environment.channels[channel]
    if images.input_mode == "Pipe":
        buffer = ShuffleBuffer(job.shuffle_buffer, job.shuffle_buffer_mb * 2**20)
        return PipeSamples(images, label_map, buffer, environment.pipe_timeout, colour_maps)
    return FileSamples(channel, find_pairs(environment.channels, channel), label_map)


def decode_sample(
    sample: Sample, label_map: LabelMap, num_classes: int, exif_orientation: str = "auto", digest: bool = False
) -> Decoded:
    """Decode a pair to uint8 RGB (H, W, 3) and uint8 labels (H, W).

    `exif_orientation`: "apply" turns the photograph as its EXIF data say, "ignore" keeps it in file order, "auto" turns it
    where only then its size is the annotation's. `digest`: whether what was seen is to hold one of the image's pixels.
    Raises BadSample that names the sample.
    """
    name = sample.name
    notes: list[str] = []
    try:
        encoded_image, encoded_annotation = sample.read()
        header = read_header(encoded_image)
        turn: Orientation = "apply" if exif_orientation == "apply" else "ignore"
        image = decode_image(encoded_image, orientation=turn, warn=notes.append)
    except OSError as error:
        raise BadSample(f"{error.filename or name} cannot be read: {error.strerror}", "unreadable") from error
    except DecodeError as error:
        raise BadSample(f"{name}: {error}; replace or remove it", "unreadable") from error
    try:
        annotation = decode_annotation(encoded_annotation, warn=notes.append)
    except DecodeError as error:
        raise bad_annotation(error, name, "unreadable") from error
    height, width = annotation.shape
    if exif_orientation == "auto" and image.shape[:2] != (height, width) == header.shape("apply"):
        turn = "apply"
        image = decode_image(encoded_image, orientation=turn)
    if image.shape[:2] != (height, width):
        sizes = f"the image is {image.shape[1]}×{image.shape[0]} but its annotation is {width}×{height}"
        raise BadSample(f"annotation of {name}: {sizes}", "size")
    try:
        reading = label_map.interpret(annotation, num_classes, sample.colour_map)
    except ClientError as error:
        raise bad_annotation(error, name, "colour") from error
    turned = turn == "apply" and header.orientation != 1
    seen = Seen(
        name,
        height,
        width,
        reading,
        annotation.palette,
        is_turned=turned,
        is_ambiguous=exif_orientation == "auto"
        and header.orientation != 1
        and header.shape("apply") == (height, width)
        and not turned,
        notes=tuple(notes),
        digest=digest_pixels(image) if digest else None,
    )
    try:
        reading.check(num_classes)
    except ClientError as error:
        raise bad_annotation(error, name, "label", seen) from error
    return Decoded(image, reading.image(), reading.ignored, seen)


def _label_map(environment: Environment, channel: str) -> LabelMap:
    return read_label_map(environment.channels, channel)


def _missing(environment: Environment, name: str) -> Iterable[str]:
    """Say which of the channel and its annotations is not there."""
    needed = [name]
    if _mode(environment.channels.get(name)) != "Pipe":
        needed.append(f"{name}_annotation")
    for channel in needed:
        if channel not in environment.channels:
            given = ", ".join(environment.channels) or "none"
            yield f"channel {channel} is missing (given: {given})"
        elif _mode(environment.channels[channel]) != "Pipe" and not environment.channels[channel].path.is_dir():
            yield f"channel {channel} has no directory {environment.channels[channel].path}"


def _mode(channel: Channel | None) -> str:
    return channel.input_mode if channel else "File"
