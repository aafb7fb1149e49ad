"""Sample sources of a channel: `open_samples` selects File or Pipe mode."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np

from container.data.labels.channel import read_label_map
from container.data.labels.color_maps import ColorMap, ColorMaps
from container.data.labels.label_maps import LabelMap
from container.data.pairing import FileSample, find_pairs
from container.data.pipe import PipeSamples, ShuffleBuffer
from container.environment import Environment
from container.hyperparameters import Hyperparameters


class Sample(Protocol):
    """An encoded image with its annotation; `name` is for error messages."""

    @property
    def name(self) -> str:
        """Path of the image, or channel and record number."""

    @property
    def color_map(self) -> ColorMap | None:
        """The class names and colors in the metadata of the sample, or None."""

    def read(self) -> tuple[bytes, bytes]:
        """Return the encoded image and annotation."""


class Samples(Protocol):
    """The samples of one channel, for any number of passes."""

    channel: str
    label_map: LabelMap

    @property
    def color_map(self) -> ColorMap | None:
        """The class names and colors in all metadata so far, or None."""

    def listed(self) -> Sequence[Sample] | None:
        """Return all samples in the order of their names, or None for a stream."""

    def epoch(self, rng: np.random.Generator | None, stopped: threading.Event) -> Iterator[Sample]:
        """Yield all samples once, in random order if `rng` is set; stops early if `stopped` is set."""


class FileSamples:
    """Pairs of files from two directories."""

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
        """Yield all pairs once, in the order of their names, or in random order if `rng` is set."""
        order = np.arange(len(self.pairs)) if rng is None else rng.permutation(len(self.pairs))
        return (self.pairs[index] for index in order)


def open_samples(
    environment: Environment, channel: str, job: Hyperparameters, color_maps: ColorMaps | None = None
) -> Samples:
    """Return the samples of a channel in File or Pipe mode; raises ClientError with the channel and a fix.

    `color_maps` collects the class names and colors in the metadata of all channels.
    """
    label_map = read_label_map(environment.channels, channel)
    label_map.check(job.num_classes)
    images = environment.channels[channel]
    if images.input_mode == "Pipe":
        buffer = ShuffleBuffer(job.shuffle_buffer, job.shuffle_buffer_mb * 2**20)
        return PipeSamples(images, label_map, buffer, environment.pipe_timeout, color_maps, job.num_classes)
    return FileSamples(channel, find_pairs(environment.channels, channel), label_map)
