"""Where samples come from: the channels, checked by name before anything is decoded."""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol

import numpy as np

from container.codecs.images import DecodeError, decode_annotation, decode_image
from container.data.ground_truth import ColourMap
from container.data.labels import LabelMap
from container.data.pipe import PipeSamples, ShuffleBuffer
from container.environment import Channel, Environment
from container.errors import ClientError, PlatformError
from container.hyperparameters import Hyperparameters

LOG = logging.getLogger(__name__)

_IMAGES = (".jpg", ".jpeg", ".png")
_ANNOTATIONS = (".png",)
_CONTENT_TYPES = ("application/x-image", "image/jpeg", "image/png", "application/x-recordio")
_LISTED = 20


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
    colour_map: ColourMap | None
    count: int | None  # of a pass; None when only its end will tell

    def epoch(self, rng: np.random.Generator | None, stopped: threading.Event) -> Iterator[Sample]:
        """Make one pass, in random order when `rng` is given; it ends early once `stopped` is set."""


@dataclasses.dataclass(frozen=True)
class FileSample:
    """A pair of files, read when it is its turn."""

    image: Path
    annotation: Path
    colour_map: ColourMap | None = None

    @property
    def name(self) -> str:
        """The image's path."""
        return str(self.image)

    def read(self) -> tuple[bytes, bytes]:
        """Read both files; raises PlatformError that names the one which cannot be read."""
        return _read(self.image), _read(self.annotation)


class FileSamples:
    """Pairs of files from two directories, listed once."""

    def __init__(self, channel: str, images: Path, annotations: Path, label_map: LabelMap) -> None:
        self.channel = channel
        self.label_map = label_map
        self.colour_map: ColourMap | None = None
        self._pairs = _pair(channel, _list(images, _IMAGES), _list(annotations, _ANNOTATIONS))
        self.count: int | None = len(self._pairs)

    def epoch(self, rng: np.random.Generator | None, stopped: threading.Event) -> Iterator[Sample]:
        """Go over all pairs once, in the order of their names unless `rng` shuffles them."""
        order = np.arange(len(self._pairs)) if rng is None else rng.permutation(len(self._pairs))
        return (self._pairs[index] for index in order)


def check_channels(environment: Environment) -> None:
    """Raise one ClientError that lists every channel that is missing or of an unsupported kind."""
    faults: list[str] = []
    for name in ("train", "validation"):
        faults += _missing(environment, name)
    if "test" in environment.channels:
        faults += _missing(environment, "test")
    for channel in environment.channels.values():
        content_type = (channel.content_type or "").split(";")[0].strip().lower()
        accepted = ("application/x-sagemaker-model",) if channel.name == "model" else _CONTENT_TYPES
        if content_type and channel.name != "label_map" and content_type not in accepted:
            faults.append(f"channel {channel.name} has ContentType {channel.content_type}; use {' or '.join(accepted)}")
    if faults:
        raise ClientError("the input channels are not complete: " + "; ".join(faults))


def open_samples(environment: Environment, channel: str, job: Hyperparameters) -> Samples:
    """Open a channel's samples, whichever its input mode; raises ClientError naming channel and remedy."""
    label_map = _label_map(environment, channel)
    images = environment.channels[channel]
    if images.input_mode == "Pipe":
        buffer = ShuffleBuffer(job.shuffle_buffer, job.shuffle_buffer_mb * 2**20)
        return PipeSamples(images, label_map, buffer, environment.pipe_timeout)
    return FileSamples(channel, images.path, environment.channels[f"{channel}_annotation"].path, label_map)


def decode_sample(sample: Sample, label_map: LabelMap, num_classes: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Decode to uint8 RGB (H, W, 3) and uint8 labels (H, W).

    Also returns how many pixels the label map left unnamed. Raises ClientError that names the sample.
    """
    encoded_image, encoded_annotation = sample.read()
    try:
        image = decode_image(encoded_image)
    except DecodeError as error:
        raise ClientError(f"{sample.name}: {error}; replace or remove it") from error
    try:
        pixels, palette = decode_annotation(encoded_annotation)
        if sample.colour_map and palette is not None:
            pixels = sample.colour_map.repair(pixels, palette)
        if pixels.shape != image.shape[:2]:
            raise DecodeError(
                f"the image is {image.shape[1]}×{image.shape[0]} "
                f"but its annotation is {pixels.shape[1]}×{pixels.shape[0]}"
            )
        labels, unnamed = label_map.apply(pixels, num_classes)
    except (DecodeError, ClientError) as error:
        raise ClientError(f"annotation of {sample.name}: {error}") from error
    return image, labels, unnamed


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:  # the error of a read that fails, unlike that of an open, does not name the file
        raise PlatformError(f"{path} could not be read: {error.strerror or error}; is it still there?") from error


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


def _label_map(environment: Environment, channel: str) -> LabelMap:
    """Read the channel's label map, when the optional channel `label_map` has one."""
    folder = environment.channels.get("label_map")
    path = folder.path / f"{channel}_label_map.json" if folder else None
    return LabelMap.read(path) if path and path.is_file() else LabelMap()


def _list(folder: Path, suffixes: tuple[str, ...]) -> dict[Path, Path]:
    """List the files with one of `suffixes` by their path below `folder`, without its suffix.

    Hidden files and files of other kinds are passed over with a warning each.
    """
    files: dict[Path, Path] = {}
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        if not path.is_file():
            continue
        if any(part.startswith(".") for part in relative.parts) or path.suffix.lower() not in suffixes:
            LOG.warning("%s is not a readable image file", path)
        elif relative.with_suffix("") in files:
            raise ClientError(f"{path} and {files[relative.with_suffix('')]} have the same stem; rename or remove one")
        else:
            files[relative.with_suffix("")] = path
    return files


def _pair(channel: str, images: dict[Path, Path], annotations: dict[Path, Path]) -> list[FileSample]:
    """Match images to annotations by their path's stem, or by the file's stem alone where folders differ."""
    if not images:
        raise ClientError(f"channel {channel} holds no image: put .jpg, .jpeg or .png files there")
    if images.keys() != annotations.keys():
        images, annotations = _by_stem(channel, images), _by_stem(f"{channel}_annotation", annotations)
    unpaired = [f"{path.name} has no annotation" for stem, path in sorted(images.items()) if stem not in annotations]
    unpaired += [f"{path.name} has no image" for stem, path in sorted(annotations.items()) if stem not in images]
    if unpaired:
        listed = ", ".join(unpaired[:_LISTED]) + (f" and {len(unpaired) - _LISTED} more" if unpaired[_LISTED:] else "")
        raise ClientError(
            f"channels {channel} and {channel}_annotation do not match by stem: {listed}; "
            "each image needs a .png annotation of the same stem"
        )
    return [FileSample(images[stem], annotations[stem]) for stem in sorted(images)]


def _by_stem(channel: str, files: dict[Path, Path]) -> dict[Path, Path]:
    stems: dict[Path, Path] = {}
    for relative, path in files.items():
        stem = Path(relative.name)
        if stem in stems:
            raise ClientError(f"channel {channel} has the stem {stem} twice: {stems[stem]} and {path}; rename one")
        stems[stem] = path
    return stems
