"""The interface of all inference engines."""

from __future__ import annotations

import dataclasses
from typing import Protocol

from container.arrays import Array, Uint8Array
from container.geometry.windows import Windows


class ImageTooLargeError(Exception):
    """No way of computing an image fits into memory; the text says what it needs and what there is."""


class CancelledError(Exception):
    """A computation was given up, because its `Stop` was asked for."""


class CancellationToken:
    """Tells a running computation that nobody waits for it any more; may be asked from any thread."""

    def __init__(self) -> None:
        self._asked = False

    def ask(self) -> None:
        """Let the computation end with Stopped at its next step."""
        self._asked = True

    def check(self) -> None:
        """Raise Stopped if it has been asked for."""
        if self._asked:
            raise CancelledError


@dataclasses.dataclass(frozen=True)
class Plan:
    """How an image is computed: at once, or in tiles of at most `tile` pixels.

    `memory` is what it takes at most beside the loaded model, in bytes, the image and its answer included; `pixels` are
    those that the network sees, where tiles overlap more than once. `passing` are the bytes of `memory` that are taken
    only while the engine computes. `parts` are the plans of the image's other sizes, where it is computed in several.
    """

    memory: int
    pixels: int
    tile: int | None = None
    passing: int = 0
    parts: tuple[Plan, ...] = ()


class Planner(Protocol):
    """What is known of a model's costs; outlives the loaded model."""

    @property
    def windows(self) -> Windows | None:
        """In which windows large images are computed, if in any."""
        ...

    def plan(self, height: int, width: int, room: int, answer: int = 0, needs: str = "mask") -> Plan:
        """Return how to compute an image within `room` bytes, of which the caller's answer takes `answer`.

        `needs` is the engine's method: mask or probabilities.
        Raises TooLarge when there is no way.
        """
        ...


class Engine(Protocol):
    """A loaded model; may be called from several threads at once."""

    num_classes: int
    precision: str
    memory: int  # bytes that it takes at most between two images, after `release`
    standing: int  # bytes that it comes to keep between two images besides what it weighs once it is warm

    @property
    def planner(self) -> Planner:
        """What is known of its costs."""
        ...

    def mask(self, image: Uint8Array, plan: Plan | None = None, stop: CancellationToken | None = None) -> Array:
        """Return the likeliest class of every pixel: uint8 RGB (H, W, 3) to uint8 (H, W).

        Without a plan nobody answers for the memory. Raises Stopped between two steps once `stop` is asked for.
        """
        ...

    def probabilities(
        self, image: Uint8Array, plan: Plan | None = None, stop: CancellationToken | None = None
    ) -> Array:
        """Return the probability of every class at every pixel: uint8 RGB (H, W, 3) to float32 (num_classes, H, W)."""
        ...

    def warm(self) -> None:
        """Answer once, so that the first request does not pay for what is set up lazily."""
        ...

    def release(self) -> None:
        """Give back what is kept between two images, unless one is being computed."""
        ...
