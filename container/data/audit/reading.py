"""Parallel reading of the pairs of a File channel, completely or as a sample."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from tqdm import tqdm

from container.arrays import Array
from container.codecs.images import DecodeError, decode_annotation
from container.data.audit.statistics import ChannelStatistics, UnusablePairError
from container.data.labels.class_counts import ClassCounts
from container.data.pairing import FileSample
from container.data.sample_decoding import check_headers, examine_sample
from container.data.samples import FileSamples
from container.environment import cpu_count
from container.errors import ClientError
from container.hyperparameters import Hyperparameters

_CHUNK = 8  # pairs per task; a task per pair would cost as much as decoding a small image
_AHEAD = 32  # tasks in the queue

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
_Work = tuple[Callable[[FileSample], None], FileSample]


def examine_pairs(
    statistics: ChannelStatistics, samples: FileSamples, job: Hyperparameters, mode: str, stop: threading.Event
) -> None:
    """Add the pairs of a channel to `statistics`; stops early if `stop` is set.

    With `mode` full, all pairs are decoded. With fast, a quarter of the pairs are opened to read their headers (at most
    1,000, because FastFile downloads every file that is opened), and a fiftieth are decoded (at most 64). They are
    evenly distributed.
    """

    def examine(sample: FileSample) -> None:
        statistics.add(examine_sample(sample, samples.label_map, job.num_classes, job.exif_orientation))

    def check(sample: FileSample) -> None:
        check_headers(sample, job.exif_orientation)

    pairs = samples.pairs
    if mode == "full":
        work: list[_Work] = [(examine, sample) for sample in pairs]
    else:
        decoded = _spread(len(pairs), max(2, min(64, len(pairs) // 50)))
        opened = _spread(len(pairs), max(16, min(1000, len(pairs) // 4))) - decoded
        work = [(examine, pairs[index]) for index in sorted(decoded)]
        work += [(check, pairs[index]) for index in sorted(opened)]

    def run(chunk: Sequence[_Work]) -> int:
        for function, sample in chunk:
            if not stop.is_set():
                try:
                    function(sample)
                except UnusablePairError as error:
                    statistics.add_unusable(error)
        return len(chunk)

    chunks = [work[start : start + _CHUNK] for start in range(0, len(work), _CHUNK)]
    with (
        ThreadPoolExecutor(cpu_count(), thread_name_prefix="audit") as pool,
        tqdm(total=len(work), desc=f"audit {statistics.channel}", leave=False, disable=None) as bar,
    ):
        for done in _results(pool, run, chunks):
            bar.update(done)


def count_classes(samples: FileSamples, job: Hyperparameters, stop: threading.Event) -> ClassCounts:
    """Return the class frequencies of all annotations; stops early if `stop` is set.

    With `_max_bad_records`, the images are opened, too, because pairs that training skips do not count. Without it, a
    pair that cannot be used is an error, which the first pass reports.
    """

    def read(sample: FileSample) -> Array:
        if job.max_bad_records:
            return examine_sample(sample, samples.label_map, job.num_classes, job.exif_orientation).reading.label_counts
        annotation = decode_annotation(sample.read_annotation())
        return samples.label_map.interpret(annotation, job.num_classes, sample.color_map).label_counts

    def count(sample: FileSample) -> Array:
        labels = np.zeros(256, np.int64)
        if not stop.is_set():
            with contextlib.suppress(OSError, ClientError, DecodeError):
                labels = read(sample)
        return labels[: job.num_classes]

    pixels, within = np.zeros(job.num_classes, np.int64), np.zeros(job.num_classes, np.int64)
    with ThreadPoolExecutor(cpu_count(), thread_name_prefix="count") as pool:
        for counts in _results(pool, count, samples.pairs, _CHUNK * _AHEAD):
            pixels += counts
            within += (counts > 0) * counts.sum()
    return ClassCounts(pixels.tolist(), within.tolist())


def _spread(size: int, count: int) -> set[int]:
    """Return `count` of `size` indices, evenly distributed."""
    return {round(place) for place in np.linspace(0, size - 1, min(size, count)).tolist()}


def _results(
    pool: ThreadPoolExecutor, function: Callable[[_Item], _Result], items: Sequence[_Item], ahead: int = _AHEAD
) -> Iterator[_Result]:
    """Call the function in the threads of the pool, with at most `ahead` tasks in the queue."""
    for start in range(0, len(items), ahead):
        yield from pool.map(function, items[start : start + ahead])
