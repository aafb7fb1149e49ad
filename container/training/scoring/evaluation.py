"""Full-resolution evaluation of a channel, within limits of time and memory."""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from container.arrays import Array, Uint8Array
from container.data.full_images import LabeledImage, SkippedImage
from container.data.loader import Loader
from container.errors import JobCancelledError, JobError
from container.metrics import ConfusionMatrix

LOG = logging.getLogger(__name__)

_LOGGED = 20  # skipped images that the log lists; report.json lists all

Prediction = tuple[Array, ...] | MemoryError  # one mask per model


class Deadline(threading.Event):
    """Event that counts as set when `stop` is set, or after `seconds`."""

    def __init__(self, stop: threading.Event, seconds: float) -> None:
        super().__init__()
        self._stop = stop
        self._end = time.monotonic() + seconds

    def is_set(self) -> bool:
        """Return whether the event is set or the deadline has passed."""
        return super().is_set() or self._stop.is_set() or time.monotonic() >= self._end

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for `stop` or the deadline, for at most `timeout` seconds; returns the value of `is_set`."""
        left = max(0.0, self._end - time.monotonic())
        self._stop.wait(left if timeout is None else min(timeout, left))
        return self.is_set()


class Evaluator(Protocol):
    """One or several models that predict masks of full images, `batch_size` images at the same time."""

    name: str
    models: int
    batch_size: int
    prefetch: int  # images to decode in advance

    def check_size(self, pixels: int) -> str | None:
        """Return why an image with this number of pixels cannot be evaluated, or None."""
        ...

    def predict(self, images: list[Uint8Array]) -> list[Prediction]:
        """Return the masks of each image, uint8 (H, W), or its MemoryError; raises JobCancelledError."""
        ...


@dataclasses.dataclass
class EvaluationResult:
    """Metrics of a channel. If the evaluation ended early, `reason` or `cancelled` is set."""

    confusions: list[ConfusionMatrix]  # one per model
    total: int | None  # images in the channel, if known
    evaluated: list[str] = dataclasses.field(default_factory=list)
    skipped: list[SkippedImage] = dataclasses.field(default_factory=list)
    reason: str | None = None
    failure: JobError | None = None  # error whose text is the reason
    cancelled: bool = False
    agreeing: int = 0  # pixels for which the first and the last model predict the same class
    pixels: int = 0

    @property
    def complete(self) -> bool:
        """Whether all images of the channel were evaluated."""
        return not (self.reason or self.cancelled or self.skipped)

    def add(self, image: LabeledImage, prediction: Prediction) -> None:
        """Add the prediction for an image."""
        if isinstance(prediction, MemoryError):
            self.skip(SkippedImage(image.name, f"{prediction} during inference", too_large=True))
            return
        for confusion, mask in zip(self.confusions, prediction, strict=True):
            confusion.update(image.labels, mask)
        self.agreeing += int((prediction[0] == prediction[-1]).sum())
        self.pixels += prediction[0].size
        self.evaluated.append(image.name)

    def skip(self, skipped: SkippedImage) -> None:
        """Add a skipped image, and log it."""
        self.skipped.append(skipped)
        if len(self.skipped) <= _LOGGED:
            LOG.warning("Skipped in the evaluation: %s", skipped)
        if len(self.skipped) == _LOGGED:
            LOG.warning("Only report.json lists further images that the evaluation skips.")

    def describe(self) -> dict[str, Any]:
        """Return the metrics for report.json; the IoU is None for classes without labels and predictions."""
        confusion = self.confusions[0]
        return {
            **self.coverage(),
            "mIOU": confusion.miou if self.evaluated else None,
            "pixel_accuracy": confusion.pixel_accuracy if self.evaluated else None,
            "iou": [None if np.isnan(value) else float(value) for value in confusion.iou()],
            "confusion": confusion.counts.tolist(),
        }

    def coverage(self) -> dict[str, Any]:
        """Return for report.json which images were evaluated; their names are listed for a sample only."""
        content: dict[str, Any] = {"images": len(self.evaluated), "of": self.total, "complete": self.complete}
        if self.skipped:
            content["skipped"] = [{"image": skipped.name, "reason": skipped.reason} for skipped in self.skipped]
        if self.reason:
            content |= {"reason": self.reason, "scored": self.evaluated}
        return content


def evaluate(
    loader: Loader,
    evaluator: Evaluator,
    num_classes: int,
    stop: threading.Event,
    watch: Callable[[LabeledImage, Array], None] | None = None,
    *,
    sharded: bool = False,
) -> EvaluationResult:
    """Evaluate the images of a channel in random order until `stop` is set.

    `sharded` limits the evaluation to the share of this host. `watch` is called with every evaluated image and its
    first mask. Images that are unreadable or too large are skipped. An error of a stream ends the evaluation.
    """
    count = loader.count
    if sharded and count is not None:
        count = loader.shard.share_size(count)
    result = EvaluationResult([ConfusionMatrix(num_classes) for _ in range(evaluator.models)], count)
    batch: list[LabeledImage] = []

    def predict() -> None:
        for image, prediction in zip(batch, evaluator.predict([image.image for image in batch]), strict=True):
            result.add(image, prediction)
            if watch and not isinstance(prediction, MemoryError):
                watch(image, prediction[0])
        batch.clear()

    try:
        for image in loader.full_images(evaluator.check_size, evaluator.prefetch, stop, divided=sharded):
            if isinstance(image, SkippedImage):
                result.skip(image)
                continue
            batch.append(image)
            if len(batch) == evaluator.batch_size:
                predict()
        if batch:
            predict()
    except JobCancelledError:
        result.cancelled = True
    except JobError as error:
        result.reason, result.failure = str(error), error
    seen = len(result.evaluated) + len(result.skipped)
    if stop.is_set() and seen != count:
        result.cancelled = True  # when `stop` is set, a stream ends without an error
    if not (result.reason or result.cancelled):
        result.total = seen
    return result
