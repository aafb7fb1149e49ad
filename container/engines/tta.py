"""Test-time augmentation: averages the predictions for flipped and scaled images."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np

from container.arrays import Array, Float32Array, Uint8Array
from container.engines.protocol import CancellationToken, Engine, Plan, Planner
from container.geometry.windows import likeliest

WAYS = ("flip", "scales", "flip,scales")  # what can be asked for
WAYS_LISTED = f"{', '.join(WAYS[:-1])} or {WAYS[-1]}"

_SCALES = (0.75, 1.0, 1.25)
_BYTES_BESIDE = 16  # per pixel: the image, a class's scores as they are resized, the mask before it is narrowed


@dataclasses.dataclass(frozen=True)
class AugmentedViews:
    """What the network is shown: the image at each of `scales`, and with `flip` mirrored as well."""

    flip: bool
    scales: tuple[float, ...]

    @classmethod
    def read(cls, text: str) -> AugmentedViews:
        """Read one of WAYS, in any order; raises ValueError that names them."""
        asked = [word.strip() for word in text.split(",")]
        if sorted(asked) not in [sorted(way.split(",")) for way in WAYS]:
            raise ValueError(f"tta must be {WAYS_LISTED}, not {text[:50]!r}")
        return cls("flip" in asked, _SCALES if "scales" in asked else (1.0,))

    def plan(self, planner: Planner, num_classes: int, size: tuple[int, int], room: int, answer: int = 0) -> Plan:
        """Return how to compute an image of `size`, as Planner.plan does; its pixels are those of all views."""
        height, width = size
        beside = height * width * (4 * num_classes + _BYTES_BESIDE) + answer  # 4: the sum so far
        parts = []
        for scale in self.scales:
            rows, columns = _scaled(size, scale)
            parts.append(planner.plan(rows, columns, room, beside + 4 * num_classes * rows * columns, "probabilities"))
        passes = 2 if self.flip else 1
        memory, passing = max(part.memory for part in parts), min(part.passing for part in parts)
        return Plan(memory, passes * sum(part.pixels for part in parts), passing=passing, parts=tuple(parts))


class AveragedEngine:
    """What an engine answers, averaged over `views`; has an Engine's methods that compute."""

    def __init__(self, engine: Engine, views: AugmentedViews) -> None:
        self._engine = engine
        self._views = views

    def mask(self, image: Uint8Array, plan: Plan | None = None, stop: CancellationToken | None = None) -> Array:
        """Return the likeliest class of every pixel: uint8 RGB (H, W, 3) to uint8 (H, W)."""
        return likeliest(self.probabilities(image, plan, stop))

    def probabilities(
        self, image: Uint8Array, plan: Plan | None = None, stop: CancellationToken | None = None
    ) -> Array:
        """Return the mean probability of every class at every pixel: uint8 RGB (H, W, 3) to float32 (C, H, W).

        `plan` is what Views.plan made.
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


def _add(found: Array, total: Float32Array) -> None:
    """Add scores (C, h, w) to those of another size, class by class: no second copy of all is held."""
    for scores, sums in zip(found, total, strict=True):
        sums += _resized(scores, sums.shape)


def _resized(pixels: Array, size: tuple[int, ...]) -> Array:
    """Resize bilinearly between the pixels' centers; what has the size already stays as it is."""
    if pixels.shape[:2] == tuple(size):
        return pixels
    return cv2.resize(np.ascontiguousarray(pixels), size[::-1], interpolation=cv2.INTER_LINEAR)
