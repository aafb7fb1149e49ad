"""Samples of a Pipe mode channel: attributes of an augmented manifest, one FIFO per pass."""

from __future__ import annotations

import dataclasses
import gzip
import itertools
import threading
import zlib
from collections.abc import Iterator
from typing import BinaryIO, cast

import numpy as np

from container.codecs.recordio import RecordIOError, read_records
from container.data.fifo import StreamCancelledError, StreamTimeoutError, open_fifo
from container.data.labels.color_maps import ColorMap, ColorMaps, read_color_map
from container.data.labels.label_maps import LabelMap
from container.data.record_layout import OPENING, REMEDY, Layout, find_layout
from container.environment import Channel
from container.errors import ClientError, PlatformError

_GZIP = b"\x1f\x8b"


@dataclasses.dataclass(frozen=True)
class PipeSample:
    """A pair of records. `name` contains the channel and the number of the first record."""

    name: str
    image: bytes
    annotation: bytes
    color_map: ColorMap | None = None

    def read(self) -> tuple[bytes, bytes]:
        """Return both records."""
        return self.image, self.annotation


@dataclasses.dataclass(frozen=True)
class ShuffleBuffer:
    """Maximum size of the shuffle buffer."""

    samples: int
    size: int  # bytes


class PipeSamples:
    """The passes over one channel. Each pass opens the next FIFO."""

    def __init__(
        self,
        channel: Channel,
        label_map: LabelMap,
        buffer: ShuffleBuffer,
        timeout: float,
        color_maps: ColorMaps | None = None,
        num_classes: int = 64,  # used if the number is not known
    ) -> None:
        if channel.record_wrapper.lower() != "recordio":
            raise ClientError(
                f"channel {channel.name} is in Pipe mode with RecordWrapperType {channel.record_wrapper}, which "
                "does not separate the records. Set RecordWrapperType to RecordIO (SDK: record_wrapping='RecordIO')"
            )
        self.channel = channel.name
        self.label_map = label_map
        self._color_maps = ColorMaps() if color_maps is None else color_maps
        self._path = channel.path
        self._buffer = buffer
        self._timeout = timeout
        self._opens = 0
        self._num_classes = num_classes
        self._layout: Layout | None = None

    @property
    def color_map(self) -> ColorMap | None:
        """The class names and colors in the metadata so far."""
        merged = self._color_maps.merged
        return merged if merged.names else None

    def listed(self) -> None:
        """Return None, because the samples of a stream are not known in advance."""

    def epoch(self, rng: np.random.Generator | None, stopped: threading.Event) -> Iterator[PipeSample]:
        """Yield the samples of one pass in the order of the stream, or shuffled within the buffer if `rng` is set."""
        samples = self._samples(stopped)
        return samples if rng is None else shuffle(samples, self._buffer, rng)

    def _samples(self, stopped: threading.Event) -> Iterator[PipeSample]:
        """Split the stream into samples; raises JobError that contains the channel and the record."""
        path = self._path.with_name(f"{self._path.name}_{self._opens}")
        self._opens += 1
        number = 0
        try:
            with open_fifo(path, self._timeout, stopped) as fifo:
                opening, records = _read_ahead(read_records(_decompress(fifo)), OPENING)
                if opening and self._layout is None:
                    self._layout = find_layout(opening, self.channel, self.label_map, self._num_classes)
                layout = self._layout or Layout()
                for sample in _grouped(records, layout.period):
                    number += layout.period
                    yield self._sample(sample, number - layout.period + 1, layout.metadata)
            if not number:
                raise ClientError(
                    f"channel {self.channel}: {path} contains no records. Make sure that the manifest is not empty"
                )
        except StreamCancelledError:
            return
        except StreamTimeoutError as error:
            raise PlatformError(
                f"channel {self.channel}: {path} had no data for {self._timeout:.0f} s after record {number}. The "
                "process that writes it exited or does not respond. PIPE_TIMEOUT_SECONDS sets this timeout"
            ) from error
        except (RecordIOError, gzip.BadGzipFile, zlib.error, EOFError) as error:
            raise PlatformError(
                f"channel {self.channel}, after record {number}: {error}. The stream was truncated, or the channel "
                "does not use RecordIO (RecordWrapperType)"
            ) from error

    def _sample(self, records: list[bytes], number: int, metadata: int | None) -> PipeSample:
        """Return the sample whose first record is `number`, counted from 1."""
        name = f"channel {self.channel}, record {number}"
        if None in records:
            raise ClientError(f"{name}: the stream ends within a sample. To correct the order of the records, {REMEDY}")
        color_map = None
        if metadata is not None:
            own = read_color_map(records[metadata], name)
            color_map = self._color_maps.add(own, name) if own else self.color_map
            records = records[:metadata] + records[metadata + 1 :]
        return PipeSample(name, records[0], records[1], color_map)


def shuffle(samples: Iterator[PipeSample], buffer: ShuffleBuffer, rng: np.random.Generator) -> Iterator[PipeSample]:
    """Yield the samples in random order, with at most one sample more than the buffer allows in memory."""
    buffered: list[PipeSample] = []
    size = 0
    for sample in samples:
        buffered.append(sample)
        size += len(sample.image) + len(sample.annotation)
        while len(buffered) > buffer.samples or (size > buffer.size and buffered):
            chosen = _pop_random(buffered, rng)
            size -= len(chosen.image) + len(chosen.annotation)
            yield chosen
    while buffered:
        yield _pop_random(buffered, rng)


def _pop_random(buffered: list[PipeSample], rng: np.random.Generator) -> PipeSample:
    index = int(rng.integers(len(buffered)))
    buffered[index], buffered[-1] = buffered[-1], buffered[index]
    return buffered.pop()


def _decompress(stream: BinaryIO) -> BinaryIO:
    """Decompress the stream if it starts with the gzip signature."""
    if stream.peek(2)[:2] == _GZIP:  # type: ignore[attr-defined]
        return cast(BinaryIO, gzip.GzipFile(fileobj=stream))
    return stream


def _read_ahead(records: Iterator[bytes], count: int) -> tuple[list[bytes], Iterator[bytes]]:
    """Read up to `count` records; returns them, and an iterator that takes them from the list, then reads the others.

    If reading fails, the iterator raises the error after the records that came before it.
    """
    opening: list[bytes] = []
    failure: Exception | None = None
    try:
        opening.extend(itertools.islice(records, count))
    except StreamCancelledError:
        raise
    except Exception as error:
        failure = error

    def all_records() -> Iterator[bytes]:
        while opening:
            yield opening.pop(0)
        if failure:
            raise failure
        yield from records

    return opening, all_records()


def _grouped(records: Iterator[bytes], period: int) -> Iterator[list[bytes]]:
    """Group records into samples. Missing records of the last sample are None."""
    return (list(group) for group in itertools.zip_longest(*[records] * period))
