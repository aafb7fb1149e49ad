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
    """A pair of records; `name` says which."""

    name: str
    image: bytes
    annotation: bytes
    color_map: ColorMap | None = None

    def read(self) -> tuple[bytes, bytes]:
        """Return both records."""
        return self.image, self.annotation


@dataclasses.dataclass(frozen=True)
class ShuffleBuffer:
    """How much of a stream may be held back to be shuffled."""

    samples: int
    size: int  # bytes


class PipeSamples:
    """The passes over one channel; each opens the next FIFO, whose number counts opens."""

    def __init__(
        self,
        channel: Channel,
        label_map: LabelMap,
        buffer: ShuffleBuffer,
        timeout: float,
        color_maps: ColorMaps | None = None,
        num_classes: int = 64,  # as many as a stream is likely to have, if unknown
    ) -> None:
        if channel.record_wrapper.lower() != "recordio":
            raise ClientError(
                f"channel {channel.name} is in Pipe mode with RecordWrapperType {channel.record_wrapper}: its stream "
                "cannot be cut into records; set RecordWrapperType to RecordIO (record_wrapping='RecordIO' in the SDK)"
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
        """The classes that the metadata has named so far."""
        merged = self._color_maps.merged
        return merged if merged.names else None

    def listed(self) -> None:
        """Return None: a stream is known when it has gone by."""

    def epoch(self, rng: np.random.Generator | None, stopped: threading.Event) -> Iterator[PipeSample]:
        """Make one pass in the stream's order, or shuffled within the buffer when `rng` is given."""
        samples = self._samples(stopped)
        return samples if rng is None else shuffle(samples, self._buffer, rng)

    def _samples(self, stopped: threading.Event) -> Iterator[PipeSample]:
        """Cut the stream into samples; raises JobError that names channel and record."""
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
                raise ClientError(f"channel {self.channel}: {path} held no record: is the manifest empty?")
        except StreamCancelledError:
            return
        except StreamTimeoutError as error:
            raise PlatformError(
                f"channel {self.channel}: nothing came through {path} for {self._timeout:.0f} s after record {number}; "
                "the writer is gone or stuck (PIPE_TIMEOUT_SECONDS is the deadline)"
            ) from error
        except (RecordIOError, gzip.BadGzipFile, zlib.error, EOFError) as error:
            raise PlatformError(
                f"channel {self.channel}, after record {number}: {error}; the writer was cut off, or the channel is "
                "not RecordIO (RecordWrapperType)"
            ) from error

    def _sample(self, records: list[bytes], number: int, metadata: int | None) -> PipeSample:
        """Make the sample whose first record is `number`, counted from 1."""
        name = f"channel {self.channel}, record {number}"
        if None in records:
            raise ClientError(f"{name}: the stream ends within a sample; {REMEDY}")
        color_map = None
        if metadata is not None:
            own = read_color_map(records[metadata], name)
            color_map = self._color_maps.add(own, name) if own else self.color_map
            records = records[:metadata] + records[metadata + 1 :]
        return PipeSample(name, records[0], records[1], color_map)


def shuffle(samples: Iterator[PipeSample], buffer: ShuffleBuffer, rng: np.random.Generator) -> Iterator[PipeSample]:
    """Yield the samples in random order, holding back no more than the buffer allows and one sample."""
    held: list[PipeSample] = []
    size = 0
    for sample in samples:
        held.append(sample)
        size += len(sample.image) + len(sample.annotation)
        while len(held) > buffer.samples or (size > buffer.size and held):
            chosen = _take(held, rng)
            size -= len(chosen.image) + len(chosen.annotation)
            yield chosen
    while held:
        yield _take(held, rng)


def _take(held: list[PipeSample], rng: np.random.Generator) -> PipeSample:
    index = int(rng.integers(len(held)))
    held[index], held[-1] = held[-1], held[index]
    return held.pop()


def _decompress(stream: BinaryIO) -> BinaryIO:
    """Undo gzip where the stream begins with its mark."""
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
    """Group records into samples; what the last one lacks is None."""
    return (list(group) for group in itertools.zip_longest(*[records] * period))
