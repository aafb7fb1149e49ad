"""Evaluation on full images, within limits of time and memory."""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from container.arrays import Array, Uint8Array
from container.data.full_images import LabeledImage, SkippedImage
from container.data.loader import Loader
from container.engines.subprocess_engine import SubprocessEngine
from container.errors import JobCancelledError, JobError
from container.metrics import ConfusionMatrix

LOG = logging.getLogger(__name__)

_TOLD = 20  # skipped pictures that the log names; the report names all of them

EncodedResponse = tuple[Array, ...] | MemoryError


class Evaluator(Protocol):
    """What answers whole images, `at_once` at the same time, with the mask of each of its `models`."""

    name: str
    models: int
    at_once: int
    ahead: int  # pictures to decode before they are asked for

    def admit(self, pixels: int) -> str | None:
        """Say why an image of so many pixels cannot be scored; None when it can."""
        ...

    def answers(self, images: list[Uint8Array]) -> list[EncodedResponse]:
        """Return each image's masks, uint8 (H, W), or why there was no memory for it; may raise Cancelled."""
        ...


class SubprocessEvaluator:
    """Models in processes of their own, one picture at a time."""

    def __init__(self, name: str, engines: Sequence[SubprocessEngine]) -> None:
        self.name = name
        self.models = len(engines)
        self.at_once = 1
        self.ahead = 0  # decoding takes memory, too, but next to no time
        self._engines = engines

    def admit(self, pixels: int) -> str | None:
        """Say why an image of so many pixels cannot be scored; None when it can."""
        largest = min(engine.max_pixels for engine in self._engines)
        return None if pixels <= largest else f"need more memory than there is: about {largest} fit"

    def answers(self, images: list[Uint8Array]) -> list[EncodedResponse]:
        """Return each image's masks."""
        return [self._answer(image) for image in images]

    def _answer(self, image: Uint8Array) -> EncodedResponse:
        try:
            return tuple(engine.mask(image) for engine in self._engines)
        except MemoryError as error:
            return error


@dataclasses.dataclass
class EvaluationResult:
    """What scoring a channel has found; `reason` or `cancelled` say why it ended before the last picture."""

    confusions: list[ConfusionMatrix]
    total: int | None  # pictures in the channel, if it is known
    scored: list[str] = dataclasses.field(default_factory=list)
    skipped: list[SkippedImage] = dataclasses.field(default_factory=list)
    reason: str | None = None
    failure: JobError | None = None  # whose text the reason is
    cancelled: bool = False
    agreeing: int = 0  # pixels on which the first and the last model give the same class
    pixels: int = 0

    @property
    def complete(self) -> bool:
        """Whether every picture of the channel has been scored."""
        return not (self.reason or self.cancelled or self.skipped)

    def count(self, picture: LabeledImage, answer: EncodedResponse) -> None:
        """Add a picture's answer."""
        if isinstance(answer, MemoryError):
            self.skip(SkippedImage(picture.name, f"{answer} while it was scored", too_large=True))
            return
        for confusion, mask in zip(self.confusions, answer, strict=True):
            confusion.update(picture.labels, mask)
        self.agreeing += int((answer[0] == answer[-1]).sum())
        self.pixels += answer[0].size
        self.scored.append(picture.name)

    def skip(self, skipped: SkippedImage) -> None:
        """Pass over a picture, and say so."""
        self.skipped.append(skipped)
        if len(self.skipped) <= _TOLD:
            LOG.warning("not scored: %s", skipped)
        if len(self.skipped) == _TOLD:
            LOG.warning("further pictures that cannot be scored are named in the report only")

    def figures(self) -> dict[str, Any]:
        """Describe the score; the IoU of a class that is neither in truth nor in prediction is None."""
        confusion = self.confusions[0]
        found: dict[str, Any] = {
            **self.coverage(),
            "mIOU": confusion.miou if self.scored else None,
            "pixel_accuracy": confusion.pixel_accuracy if self.scored else None,
            "iou": [None if np.isnan(value) else float(value) for value in confusion.iou()],
            "confusion": confusion.counts.tolist(),
        }
        return found

    def coverage(self) -> dict[str, Any]:
        """Describe which pictures the score is of; those of a sample are named."""
        found: dict[str, Any] = {"images": len(self.scored), "of": self.total, "complete": self.complete}
        if self.skipped:
            found["skipped"] = [{"image": skipped.name, "reason": skipped.reason} for skipped in self.skipped]
        if self.reason:
            found |= {"reason": self.reason, "scored": self.scored}
        return found


def score(
    loader: Loader,
    scorer: Evaluator,
    num_classes: int,
    until: threading.Event,
    watch: Callable[[LabeledImage, Array], None] | None = None,
    *,
    divided: bool = False,
) -> EvaluationResult:
    """Score a channel's pictures in random order, until there are no more, or `until` is set.

    If `divided`, only this host's. `watch` is shown every picture that was scored, with its first mask.

    A picture that is unreadable or does not fit is skipped; a stream that breaks ends the score where it is.
    """
    count = loader.count
    if divided and count is not None:
        count = loader.shard.share_size(count)
    found = EvaluationResult([ConfusionMatrix(num_classes) for _ in range(scorer.models)], count)
    group: list[LabeledImage] = []

    def answer() -> None:
        for picture, masks in zip(group, scorer.answers([picture.image for picture in group]), strict=True):
            found.count(picture, masks)
            if watch and not isinstance(masks, MemoryError):
                watch(picture, masks[0])
        group.clear()

    try:
        for picture in loader.pictures(scorer.admit, scorer.ahead, until, divided=divided):
            if isinstance(picture, SkippedImage):
                found.skip(picture)
                continue
            group.append(picture)
            if len(group) == scorer.at_once:
                answer()
        if group:
            answer()
    except JobCancelledError:
        found.cancelled = True
    except JobError as error:
        found.reason, found.failure = str(error), error
    seen = len(found.scored) + len(found.skipped)
    if until.is_set() and seen != count:
        found.cancelled = True  # a stream ends without a word when it is no longer wanted
    if not (found.reason or found.cancelled):
        found.total = seen
    return found
