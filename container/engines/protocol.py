"""The interface of all inference engines."""

from __future__ import annotations

import dataclasses
from typing import Protocol

from container.arrays import Array, Uint8Array
from container.geometry.windows import Windows


class ImageTooLargeError(Exception):
    """An image does not fit in memory, even in tiles. The text contains the memory that it needs and the limit."""


class CancelledError(Exception):
    """An inference was cancelled with its `CancellationToken`."""


class CancellationToken:
    """Request to cancel a running inference, which any thread can make."""

    def __init__(self) -> None:
        self._asked = False

    def ask(self) -> None:
        """Cancel the inference before its next tile, window, or band."""
        self._asked = True

    def check(self) -> None:
        """Raise CancelledError if the inference is cancelled."""
        if self._asked:
            raise CancelledError


@dataclasses.dataclass(frozen=True)
class Plan:
    """How an image is processed: in one pass, or in tiles of at most `tile` pixels.

    `memory` is the maximum memory in bytes in addition to the loaded model, with the image and the response. `pixels`
    is the number of pixels of all model inputs: pixels in several tiles count several times. `passing` is the part of
    `memory` that is used only during inference. `parts` are the plans of the scaled images of test-time augmentation.
    """

    memory: int
    pixels: int
    tile: int | None = None
    passing: int = 0
    parts: tuple[Plan, ...] = ()


class Planner(Protocol):
    """Memory costs of a model, which are known even when it is unloaded."""

    @property
    def windows(self) -> Windows | None:
        """Sliding windows for large images, or None."""
        ...

    def plan(self, height: int, width: int, room: int, answer: int = 0, needs: str = "mask") -> Plan:
        """Return how to process an image within `room` bytes, of which the response of the caller needs `answer`.

        `needs` is the method of the engine: mask or probabilities. Raises ImageTooLargeError if the image does not fit.
        """
        ...


class Engine(Protocol):
    """A loaded model, which several threads can use at the same time."""

    num_classes: int
    precision: str
    memory: int  # maximum bytes between two images, after `release`
    standing: int  # bytes that it can retain between two images, in addition to those after `warm`

    @property
    def planner(self) -> Planner:
        """Memory costs of the model."""
        ...

    def mask(self, image: Uint8Array, plan: Plan | None = None, stop: CancellationToken | None = None) -> Array:
        """Return the most likely class of every pixel: uint8 RGB (H, W, 3) to uint8 (H, W).

        Without a plan, the memory has no limit. Raises CancelledError between two steps if `stop` is cancelled.
        """
        ...

    def probabilities(
        self, image: Uint8Array, plan: Plan | None = None, stop: CancellationToken | None = None
    ) -> Array:
        """Return the probability of every class at every pixel: uint8 RGB (H, W, 3) to float32 (num_classes, H, W)."""
        ...

    def warm(self) -> None:
        """Run inference once, so that the first request does not wait for initialization."""
        ...

    def release(self) -> None:
        """Release the memory that is retained between two images, unless an inference runs."""
        ...
