"""Batches for the device: decoded and augmented in parallel with it, in order, and never more than a few ahead."""

from __future__ import annotations

import contextlib
import dataclasses
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from container.data.samples import Sample

Pair = tuple[np.ndarray, np.ndarray]
_AHEAD = 2  # batches that may wait for the device


@dataclasses.dataclass(frozen=True)
class Batch:
    """uint8 images (N, H, W, 3) and uint8 labels (N, H, W), 255 = ignore."""

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.images)


class Rollover:
    """Cuts passes into batches of one size; what a pass leaves over opens the next pass."""

    def __init__(self, batch_size: int) -> None:
        self._size = batch_size
        self._kept: list[Sample] = []

    def groups(self, samples: Iterable[Sample]) -> Iterator[list[Sample]]:
        """Yield full batches; a pass too short for one yields what it has."""
        group, full = self._kept, 0
        self._kept = []
        for sample in samples:
            group.append(sample)
            if len(group) == self._size:
                yield group
                group, full = [], full + 1
        if group and not full:
            yield group
        else:
            self._kept = group


def groups(samples: Iterable[Sample], size: int) -> Iterator[list[Sample]]:
    """Cut one pass into batches, the last of which may be smaller."""
    group: list[Sample] = []
    for sample in samples:
        group.append(sample)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def batches(
    grouped: Iterable[list[Sample]], transform: Callable[[Sample, int], Pair], workers: int
) -> Iterator[Batch]:
    """Yield a batch per group; `transform` (sample, its number in the pass) runs in `workers` threads.

    A thread of its own reads the samples, so that a stream is drained while the device works. Closing
    the iterator stops and joins all threads. An exception of the reader or of `transform` is raised here.
    """
    waiting: queue.Queue[list[Future[Pair]] | BaseException | None] = queue.Queue(_AHEAD)
    stopped = threading.Event()

    def offer(item: list[Future[Pair]] | BaseException | None) -> None:
        while not stopped.is_set():
            with contextlib.suppress(queue.Full):
                return waiting.put(item, timeout=0.1)

    def read(pool: ThreadPoolExecutor) -> None:
        number = 0
        try:
            for group in grouped:
                offer([pool.submit(transform, sample, number + i) for i, sample in enumerate(group)])
                number += len(group)
                if stopped.is_set():
                    return
            offer(None)
        except BaseException as error:  # handed over, and raised where the batches are used
            offer(error)

    with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        reader = threading.Thread(target=read, args=(pool,), name="read", daemon=True)
        reader.start()
        try:
            while (item := waiting.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                images, labels = zip(*(future.result() for future in item))
                yield Batch(np.stack(images), np.stack(labels))
        finally:
            stopped.set()
            pool.shutdown(wait=True, cancel_futures=True)
            reader.join()
