"""Full images with their labels, one at a time; unusable images are skipped and listed."""

from __future__ import annotations

import concurrent.futures
import dataclasses
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Event

from container.arrays import Array, Uint8Array
from container.codecs.images import DecodeError, read_header
from container.data.labels.color_maps import ColorMap
from container.data.samples import Sample
from container.errors import JobCancelledError, JobError
from container.geometry.tiles import padded_pixels

_POLL_SECONDS = 0.1  # interval at which a wait checks `until`


@dataclasses.dataclass(frozen=True)
class LabeledImage:
    """uint8 RGB image (H, W, 3) and uint8 labels (H, W), 255 = ignore."""

    name: str
    image: Uint8Array
    labels: Uint8Array


@dataclasses.dataclass(frozen=True)
class SkippedImage:
    """An image that was skipped."""

    name: str
    reason: str
    too_large: bool = False  # or if there was not enough memory; the file can be valid

    def __str__(self) -> str:
        """Return the reason, with the name of the image if the reason does not contain it."""
        return self.reason if self.name in self.reason else f"{self.name}: {self.reason}"


def read_full_images(
    samples: Iterable[Sample],
    decode: Callable[[Sample], tuple[Array, Array]],
    admit: Callable[[int], str | None],
    ahead: int,
    workers: int,
    until: Event,
) -> Iterator[LabeledImage | SkippedImage]:
    """Yield the images of the samples in their order; `workers` threads decode up to `ahead` images in advance.

    Before an image is decoded, `admit` is called with its number of pixels (partial cells of the model output in full).
    It returns the reason if the image cannot be used, or None. The error of a stream is raised after the images before
    it. Raises JobCancelledError if `until` is set.
    """

    def load(sample: Sample) -> LabeledImage | SkippedImage:
        try:
            read = _ReadSample(sample.name, sample.color_map, sample.read())
            header = read_header(read.encoded[0])
            if reason := admit(padded_pixels(header.height, header.width)):
                return SkippedImage(sample.name, f"{header.width}×{header.height} pixels {reason}", too_large=True)
            return LabeledImage(sample.name, *decode(read))
        except (JobError, DecodeError) as error:
            return SkippedImage(sample.name, str(error))
        except OSError as error:
            return SkippedImage(
                sample.name, f"{error.filename or sample.name} cannot be read: {error.strerror or error}"
            )
        except MemoryError:
            return SkippedImage(sample.name, "there was not enough memory to decode the image", too_large=True)

    pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")
    waiting: deque[Future[LabeledImage | SkippedImage]] = deque()
    broken: JobError | None = None
    try:
        try:
            for sample in samples:
                waiting.append(pool.submit(load, sample))
                if len(waiting) > ahead:
                    yield _result(waiting.popleft(), until)
        except JobError as error:
            broken = error
        while waiting:
            yield _result(waiting.popleft(), until)
        if broken:
            raise broken
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


@dataclasses.dataclass(frozen=True)
class _ReadSample:
    """A sample that was read."""

    name: str
    color_map: ColorMap | None
    encoded: tuple[bytes, bytes]

    def read(self) -> tuple[bytes, bytes]:
        return self.encoded


def _result(future: Future[LabeledImage | SkippedImage], until: Event) -> LabeledImage | SkippedImage:
    while not until.is_set():
        if concurrent.futures.wait([future], _POLL_SECONDS).done:
            return future.result()
    raise JobCancelledError
