"""Test-time augmentation: averages the predictions for flipped and scaled images."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np

from container.arrays import Array, Float32Array, Uint8Array
from container.engines.protocol import CancellationToken, Engine, Plan, Planner
from container.geometry.windows import likeliest

WAYS = ("flip", "scales", "flip,scales")  # valid values
WAYS_LISTED = f"{', '.join(WAYS[:-1])} or {WAYS[-1]}"

_SCALES = (0.75, 1.0, 1.25)
_BYTES_PER_PIXEL = 16  # the image, the resized probabilities of a class, and the mask before its conversion to uint8


@dataclasses.dataclass(frozen=True)
class AugmentedViews:
    """Versions of an image for the model: one per scale, and with `flip` also their mirror images."""

    flip: bool
    scales: tuple[float, ...]

    @classmethod
    def read(cls, text: str) -> AugmentedViews:
        """Parse one of WAYS, with its words in any order; raises ValueError that lists them."""
        words = [word.strip() for word in text.split(",")]
        if sorted(words) not in [sorted(way.split(",")) for way in WAYS]:
            raise ValueError(f"tta must be {WAYS_LISTED}, not {text[:50]!r}")
        return cls("flip" in words, _SCALES if "scales" in words else (1.0,))

    def plan(self, planner: Planner, num_classes: int, size: tuple[int, int], room: int, answer: int = 0) -> Plan:
        """Return how to process an image of `size`, as Planner.plan does; `pixels` counts all views."""
        height, width = size
        totals = height * width * (4 * num_classes + _BYTES_PER_PIXEL) + answer  # 4: float32 sums
        parts = []
        for scale in self.scales:
            rows, columns = _scaled(size, scale)
            parts.append(planner.plan(rows, columns, room, totals + 4 * num_classes * rows * columns, "probabilities"))
        passes = 2 if self.flip else 1
        memory, passing = max(part.memory for part in parts), min(part.passing for part in parts)
        return Plan(memory, passes * sum(part.pixels for part in parts), passing=passing, parts=tuple(parts))


class AveragedEngine:
    """Average of the output of an engine over `views`, with the inference methods of Engine."""

    def __init__(self, engine: Engine, views: AugmentedViews) -> None:
        self._engine = engine
        self._views = views

    def mask(self, image: Uint8Array, plan: Plan | None = None, stop: CancellationToken | None = None) -> Array:
        """Return the most likely class of every pixel: uint8 RGB (H, W, 3) to uint8 (H, W)."""
        return likeliest(self.probabilities(image, plan, stop))

    def probabilities(
        self, image: Uint8Array, plan: Plan | None = None, stop: CancellationToken | None = None
    ) -> Array:
        """Return the mean probability of every class at every pixel: uint8 RGB (H, W, 3) to float32 (C, H, W).

        `plan` is the result of AugmentedViews.plan.
        """
        total: Float32Array = np.zeros((self._engine.num_classes, *image.shape[:2]), np.float32)
        parts = plan.parts if plan else (None,) * len(self._views.scales)
        for scale, part in zip(self._views.scales, parts, strict=True):
            view = _resized(image, _scaled(image.shape[:2], scale))
            _add(self._engine.probabilities(view, part, stop), total)
            if self._views.flip:
                _add(self._engine.probabilities(np.ascontiguousarray(view[:, ::-1]), part, stop)[..., ::-1], total)
        total /= len(self._views.scales) * (2 if self._views.flip else 1)
        return total


def _scaled(size: tuple[int, ...], scale: float) -> tuple[int, int]:
    height, width = size
    return max(1, round(height * scale)), max(1, round(width * scale))


def _add(probabilities: Array, total: Float32Array) -> None:
    """Add probabilities (C, h, w), resized class by class, so that there is no second copy of all classes."""
    for plane, sums in zip(probabilities, total, strict=True):
        sums += _resized(plane, sums.shape)


def _resized(pixels: Array, size: tuple[int, ...]) -> Array:
    """Resize bilinearly between pixel centers; returns the same array if it already has this size."""
    if pixels.shape[:2] == tuple(size):
        return pixels
    return cv2.resize(np.ascontiguousarray(pixels), size[::-1], interpolation=cv2.INTER_LINEAR)
