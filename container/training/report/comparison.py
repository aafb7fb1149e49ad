"""Comparison of two models on the same images."""

from __future__ import annotations

import dataclasses

from container.training.report.class_metrics import class_metrics
from container.training.report.content import Content

_CLOSEST = 0.001  # of the mIOU of an image; smaller differences are ties
_SHOWN = 5  # images with the largest gains, and with the largest losses


@dataclasses.dataclass(frozen=True)
class ClassChange:
    """IoU of a class in both models; None if the class is neither in the annotations nor in the predictions."""

    label: int
    mine: float | None
    other: float | None

    @property
    def gain(self) -> float | None:
        """Difference of the IoU, positive if this model is better."""
        return None if self.mine is None or self.other is None else self.mine - self.other


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Classes and images sorted by gain, and `chance`, the probability of such a result for two equal models."""

    classes: list[ClassChange]
    better: int
    worse: int
    tied: int
    chance: float
    gained: list[tuple[str, float, float]]  # image, mIOU of this model, mIOU of the other model; largest gain first
    lost: list[tuple[str, float, float]]

    @property
    def summary(self) -> str:
        """The result in plain text."""
        split = f"{self.better} images are better, {self.worse} are worse, and {self.tied} are equal"
        text = f"{split}. The probability of this or a larger difference between equal models is {self.chance:.2g}"
        if self.chance >= 0.05:
            return f"{text}. This is no evidence of a difference"
        which = "better" if self.better > self.worse else "worse"
        return f"{text}. This model is {which}"


def compare(content: Content) -> Comparison | None:
    """Compare the model with its baseline; None if there is no baseline."""
    scored, baseline = content.scored, content.baseline
    if scored is None or baseline is None:
        return None
    pairs = zip(class_metrics(scored.confusion), class_metrics(baseline.confusion), strict=True)
    classes = [ClassChange(mine.label, mine.iou, other.iou) for mine, other in pairs]
    classes.sort(key=lambda change: (change.gain is None, change.gain or 0.0, change.label))
    images = sorted(
        ((name, mine, other) for name, (mine, other) in baseline.images.items()), key=lambda row: row[2] - row[1]
    )
    gained = [row for row in images if row[1] - row[2] > _CLOSEST]
    lost = [row for row in reversed(images) if row[2] - row[1] > _CLOSEST]
    tied = len(images) - len(gained) - len(lost)
    chance = sign_test(len(gained), len(lost))
    return Comparison(classes, len(gained), len(lost), tied, chance, gained[:_SHOWN], lost[:_SHOWN])


def sign_test(better: int, worse: int) -> float:
    """Return the p-value of the two-sided sign test: of this or a more uneven split; ties are excluded.

    The result is exact. The import of SciPy takes 1 s.
    """
    count, fewer = better + worse, min(better, worse)
    ways = tail = 1  # number of ways to choose k of count, and sum over all smaller k
    for k in range(fewer):
        ways = ways * (count - k) // (k + 1)
        tail += ways
    return min(1.0, float(2 * tail / 2**count))
