"""Comparison of two models on the same images."""

from __future__ import annotations

import dataclasses

from container.training.report.class_metrics import class_metrics
from container.training.report.content import Content

_CLOSEST = 0.001  # of an image's mIOU: what is nearer counts as a tie
_SHOWN = 5  # images gained, and lost, most


@dataclasses.dataclass(frozen=True)
class ClassChange:
    """A class's IoU in both models, None where it is in neither truth nor prediction."""

    label: int
    mine: float | None
    other: float | None

    @property
    def gain(self) -> float | None:
        """By how much this model is better."""
        return None if self.mine is None or self.other is None else self.mine - self.other


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Classes by their gain, images by theirs, and how likely so uneven a split of images is among equal models."""

    classes: list[ClassChange]
    better: int
    worse: int
    tied: int
    chance: float
    gained: list[tuple[str, float, float]]  # image, its mIOU in this model, in the other; the largest gain first
    lost: list[tuple[str, float, float]]

    @property
    def told(self) -> str:
        """The result in a sentence."""
        split = f"{self.better} images are better, {self.worse} worse and {self.tied} the same"
        if self.chance >= 0.05:
            return f"{split}: equal models differ so much or more with probability {self.chance:.2g}: no evidence"
        which = "better" if self.better > self.worse else "worse"
        return f"{split}: equal models differ so much with probability {self.chance:.2g} only, so this one is {which}"


def compare(content: Content) -> Comparison | None:
    """Compare the content's model with its rival; None without one."""
    scored, rival = content.scored, content.rival
    if scored is None or rival is None:
        return None
    pairs = zip(class_metrics(scored.confusion), class_metrics(rival.confusion), strict=True)
    classes = [ClassChange(mine.label, mine.iou, other.iou) for mine, other in pairs]
    classes.sort(key=lambda change: (change.gain is None, change.gain or 0.0, change.label))
    images = sorted(
        ((name, mine, other) for name, (mine, other) in rival.images.items()), key=lambda row: row[2] - row[1]
    )
    gained = [row for row in images if row[1] - row[2] > _CLOSEST]
    lost = [row for row in reversed(images) if row[2] - row[1] > _CLOSEST]
    tied = len(images) - len(gained) - len(lost)
    chance = sign_test(len(gained), len(lost))
    return Comparison(classes, len(gained), len(lost), tied, chance, gained[:_SHOWN], lost[:_SHOWN])


def sign_test(better: int, worse: int) -> float:
    """Return the two-sided probability of a split at least as uneven when either side is as likely; ties are left out.

    Exact, in integers: SciPy would be a second's import for these lines.
    """
    count, fewer = better + worse, min(better, worse)
    ways = tail = 1  # of 0 among count; of at most so many
    for k in range(fewer):
        ways = ways * (count - k) // (k + 1)
        tail += ways
    return min(1.0, float(2 * tail / 2**count))
