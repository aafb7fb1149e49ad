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
from container.data.audit.statistics import BadSample, ChannelStatistics
from container.data.labels.class_counts import ClassCounts
from container.data.pairing import FileSample
from container.data.samples import FileSamples, check_headers, examine_sample
from container.environment import cpu_count
from container.errors import ClientError
from container.hyperparameters import Hyperparameters

_CHUNK = 8  # pairs per task: handing over each alone would cost as much as small pictures do
_AHEAD = 32  # tasks that wait

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
_Chunk = Sequence[tuple[Callable[[FileSample], None], FileSample]]


def examine_pairs(
    findings: ChannelStatistics, samples: FileSamples, job: Hyperparameters, mode: str, stop: threading.Event
) -> None:
    """Open every pair (`mode` full), or a quarter of the headers and a fiftieth of the pairs, evenly spread (fast).

    The fast way opens at most 1,000 and decodes at most 64: FastFile fetches what is opened. What is found goes into
    `findings`; ends early once `stop` is set.
    """

    def examine(sample: FileSample) -> None:
        findings.add(examine_sample(sample, samples.label_map, job.num_classes, job.exif_orientation))

    def glance(sample: FileSample) -> None:
        check_headers(sample, job.exif_orientation)

    pairs = samples.pairs
    if mode == "full":
        work = [(examine, sample) for sample in pairs]
    else:
        chosen = _spread(len(pairs), max(2, min(64, len(pairs) // 50)))
        opened = _spread(len(pairs), max(16, min(1000, len(pairs) // 4))) - chosen
        work = [(examine, pairs[index]) for index in sorted(chosen)]
        work += [(glance, pairs[index]) for index in sorted(opened)]

    def do(chunk: _Chunk) -> int:
        for way, sample in chunk:
            if not stop.is_set():
                try:
                    way(sample)
                except BadSample as error:
                    findings.add_bad(error)
        return len(chunk)

    chunks = [work[start : start + _CHUNK] for start in range(0, len(work), _CHUNK)]
    with (
        ThreadPoolExecutor(cpu_count(), thread_name_prefix="audit") as pool,
        tqdm(total=len(work), desc=f"audit {findings.channel}", leave=False, disable=None) as bar,
    ):
        for done in _results(pool, do, chunks):
            bar.update(done)


def count_classes(samples: FileSamples, job: Hyperparameters, stop: threading.Event) -> ClassCounts:
    """Count how often each class occurs, from all annotations.

    With `_max_bad_records` photographs are opened, too: samples that training will skip count for nothing. Without,
    one such ends the job; the pass that comes upon it says so. Ends early once `stop` is set.
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
        for own in _results(pool, count, samples.pairs, _CHUNK * _AHEAD):
            pixels += own
            within += (own > 0) * own.sum()
    return ClassCounts(pixels.tolist(), within.tolist())


def _spread(size: int, count: int) -> set[int]:
    """Choose `count` of `size` places, evenly spread."""
    return {round(place) for place in np.linspace(0, size - 1, min(size, count)).tolist()}


def _results(
    pool: ThreadPoolExecutor, do: Callable[[_Item], _Result], items: Sequence[_Item], ahead: int = _AHEAD
) -> Iterator[_Result]:
    """Do the work in the pool's threads, with at most so many tasks waiting."""
    for start in range(0, len(items), ahead):
        yield from pool.map(do, items[start : start + ahead])
