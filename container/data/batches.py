"""Batches that are decoded and augmented in parallel, in order, with bounded prefetch."""

from __future__ import annotations

import contextlib
import dataclasses
import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from container.arrays import Array, Uint8Array
from container.data.labels.decoding import IGNORE
from container.data.samples import Sample

Pair = tuple[Array, Array]
_Group = tuple[int, list[tuple[str, "Future[Pair | None]"]]]
_Item = _Group | BaseException | None
# takes the number in its pass of a group's first sample, and the group; returns the same of a host's part of it
Part = Callable[[int, list[Sample]], tuple[int, list[Sample]]]
_AHEAD = 2  # batches that wait for the device
_SLICE_SECONDS = 0.1  # how soon a wait notices that it is no longer wanted


@dataclasses.dataclass(frozen=True)
class Batch:
    """uint8 images (N, H, W, 3) and uint8 labels (N, H, W), 255 = ignore; `group` is its number in its pass, from 0.

    `names` are those of the samples. Several hosts have a part of it each; `whole` then has the images and the labeled
    pixels of all parts.
    """

    images: Uint8Array
    labels: Uint8Array
    group: int = 0
    names: tuple[str, ...] = ()
    whole: tuple[int, int] | None = None

    def __len__(self) -> int:
        return len(self.images)

    @property
    def size(self) -> int:
        """How many images it has, over all hosts."""
        return self.whole[0] if self.whole else len(self)

    @property
    def labeled(self) -> int:
        """How many of its pixels are labeled, over all hosts."""
        return self.whole[1] if self.whole else int((self.labels != IGNORE).sum())

    @classmethod
    def empty(cls, side: int, group: int) -> Batch:
        """Return an empty batch for a host without samples; images have `side` × `side` pixels."""
        return cls(np.zeros((0, side, side, 3), np.uint8), np.zeros((0, side, side), np.uint8), group)


def _whole(number: int, group: list[Sample]) -> tuple[int, list[Sample]]:
    return number, group


class Rollover:
    """Cuts passes into batches of one size; what a pass leaves over, `kept`, opens the next pass."""

    def __init__(self, batch_size: int) -> None:
        self._size = batch_size
        self.kept: list[Sample] = []

    def groups(self, samples: Iterable[Sample]) -> Iterator[list[Sample]]:
        """Yield full batches; a pass too short for one yields what it has."""
        group, full = self.kept, 0
        self.kept = []
        for sample in samples:
            group.append(sample)
            if len(group) == self._size:
                yield group
                group, full = [], full + 1
        if group and not full:
            yield group
        else:
            self.kept = group


def groups(samples: Iterable[Sample], size: int) -> Iterator[list[Sample]]:
    """Cut one pass into batches, the last of which can be smaller."""
    group: list[Sample] = []
    for sample in samples:
        group.append(sample)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def batches(
    read: Callable[[threading.Event], Iterable[list[Sample]]],
    transform: Callable[[Sample, int], Pair | None],
    workers: int,
    stop: threading.Event,
    skip: int = 0,
    part: Part = _whole,
    side: int | None = None,
) -> Generator[Batch, None, None]:
    """Yield a batch per group that `read` gives; `transform` (sample, its number) runs in `workers` threads.

    The first `skip` groups are counted, but neither decoded nor yielded. Of each group only its `part` is used. A group
    of which nothing can be used is left out, or, with `side`, a batch without images of so many pixels.

    A separate thread reads, so that a stream is read while the device works. The event that `read` receives is set
    when it must end. Samples for which `transform` returns None are left out. The iterator ends early once `stop`
    is set; closing it stops and joins all threads. An exception of the reader or of `transform` is raised here.
    """
    reader = _Reader(read, transform, ThreadPoolExecutor(workers, thread_name_prefix="decode"), skip, part)
    reader.start()
    try:
        while (item := reader.take(stop)) is not None:
            if isinstance(item, BaseException):
                raise item
            group, futures = item
            if pairs := [(name, *pair) for name, future in futures if (pair := future.result())]:
                names, images, labels = zip(*pairs, strict=True)
                yield Batch(np.stack(images), np.stack(labels), group, names)
            elif side is not None:
                yield Batch.empty(side, group)
    finally:
        reader.close()


class _Reader(threading.Thread):
    """Reads groups, has them decoded, and keeps a few of them ready."""

    def __init__(
        self,
        read: Callable[[threading.Event], Iterable[list[Sample]]],
        transform: Callable[[Sample, int], Pair | None],
        pool: ThreadPoolExecutor,
        skip: int,
        part: Part,
    ) -> None:
        super().__init__(name="read", daemon=True)
        self._read = read
        self._transform = transform
        self._pool = pool
        self._skip = skip
        self._part = part
        self._stopped = threading.Event()
        self._ready: queue.Queue[_Item] = queue.Queue(_AHEAD)

    def run(self) -> None:
        """Read to the end, then say so by None; an exception is handed over to be raised where batches are used."""
        number = 0
        try:
            for index, group in enumerate(self._read(self._stopped)):
                if index >= self._skip:
                    first, own = self._part(number, group)
                    submit = self._pool.submit
                    futures = [submit(self._transform, sample, at) for at, sample in enumerate(own, first)]
                    self._offer((index, [(sample.name, each) for sample, each in zip(own, futures, strict=True)]))
                number += len(group)
                if self._stopped.is_set():
                    return
            self._offer(None)
        except BaseException as error:
            self._offer(error)

    def take(self, stop: threading.Event) -> _Item:
        """Wait for the next group; None at the end, or when `stop` is set."""
        while not stop.is_set():
            with contextlib.suppress(queue.Empty):
                return self._ready.get(timeout=_SLICE_SECONDS)
        return None

    def close(self) -> None:
        """Stop reading and decoding, and join all threads."""
        self._stopped.set()
        self.join()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _offer(self, item: _Item) -> None:
        while not self._stopped.is_set():
            with contextlib.suppress(queue.Full):
                return self._ready.put(item, timeout=_SLICE_SECONDS)
