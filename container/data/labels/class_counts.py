"""Class frequencies of the training channel, and the weights and probabilities computed from them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from container.arrays import Array, Uint8Array

_ENET = 1.02  # c in 1 / ln(c + p) of https://arxiv.org/abs/1606.02147, section 5.2


@dataclasses.dataclass(frozen=True)
class ClassCounts:
    """Labeled pixels of each class, and labeled pixels of all images that contain the class."""

    pixels: Sequence[int]
    within: Sequence[int]

    def weights(self, kind: str) -> list[float]:
        """Return the weight of each class in the loss.

        - balanced: the median frequency of all classes divided by the frequency of the class. The frequency is the
          share of the class in the images that contain it (https://arxiv.org/abs/1411.4734, section 6.3.2).
        - enet: 1 / ln(1.02 + the share of the class in all pixels).

        A class that does not occur has the largest weight of the other classes.
        """
        pixels, within = np.array(self.pixels, np.float64), np.array(self.within, np.float64)
        present = pixels > 0
        if not present.any():
            return [1.0] * len(pixels)
        weights = np.ones(len(pixels))
        if kind == "balanced":
            frequencies = pixels[present] / within[present]
            weights[present] = np.median(frequencies) / frequencies
        else:
            weights[present] = 1 / np.log(_ENET + pixels[present] / pixels.sum())
        weights[~present] = weights[present].max()
        return [float(weight) for weight in weights]

    def as_dict(self) -> dict[str, Any]:
        """Return the content for a checkpoint."""
        return {"pixels": list(self.pixels), "within": list(self.within)}


def rare_pixel(
    labels: Uint8Array, num_classes: int, counts: ClassCounts | None, rng: np.random.Generator
) -> tuple[int, int] | None:
    """Sample a class of the image by its inverse frequency, and return the row and column of one of its pixels.

    The frequency refers to all training pixels, or to the pixels of the image if `counts` is None. Returns None if the
    image has no labels.
    """
    here = np.bincount(labels.reshape(-1), minlength=num_classes)[:num_classes]
    present = np.flatnonzero(here)
    if not len(present):
        return None
    frequent: Array = here if counts is None else np.maximum(np.array(counts.pixels), here)
    odds = 1.0 / frequent[present]
    chosen = rng.choice(present, p=odds / odds.sum())
    places = np.flatnonzero(labels.reshape(-1) == chosen)
    row, column = divmod(int(places[rng.integers(len(places))]), labels.shape[1])
    return row, column
