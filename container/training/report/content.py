"""All values that the report page shows."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from container.arrays import Int64Array, Uint8Array
from container.artifact.classes import ClassEntry, called
from container.schema import lacking, read_schema, reason_against


@dataclasses.dataclass(frozen=True)
class ExampleImage:
    """One image to look at, scaled down.

    `image` is uint8 RGB (H, W, 3); `labels` and `prediction` are uint8 (H, W); `errors`, uint8 (H, W), is 0 where the
    prediction is right, 1 where it is wrong within 3 pixels of a border, 2 where it is wrong elsewhere, 3 where nothing
    is labeled. `miou` is over the classes in this image, `wrong` the share of its labeled pixels.
    """

    name: str
    miou: float
    wrong: float
    image: Uint8Array
    labels: Uint8Array
    prediction: Uint8Array
    errors: Uint8Array


@dataclasses.dataclass(frozen=True)
class Borders:
    """Labeled pixels within 3 pixels of a border between labels, and those farther inside; how many are wrong."""

    near: int = 0
    near_wrong: int = 0
    inside: int = 0
    inside_wrong: int = 0

    def __add__(self, other: Borders) -> Borders:
        pairs = zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)
        return Borders(*(mine + its for mine, its in pairs))


@dataclasses.dataclass(frozen=True)
class EvaluationSummary:
    """What a set of images has shown: `confusion` counts pixels, (true, predicted), int64 (C, C)."""

    of: str  # what the images are, as in "24 whole validation images, with the weights of epoch 7"
    confusion: Int64Array
    images: int
    borders: Borders = Borders()
    worst: Sequence[ExampleImage] = ()
    median: Sequence[ExampleImage] = ()
    best: Sequence[ExampleImage] = ()
    note: str = ""  # what has to be known to quote the score


@dataclasses.dataclass(frozen=True)
class Baseline:
    """Another model on the same images: `confusion` as in Scored, and each image's mIOU as (this model's, its)."""

    name: str
    confusion: Int64Array
    images: Mapping[str, tuple[float, float]]


@dataclasses.dataclass(frozen=True)
class Content:
    """What a job, or an evaluation, has to show so far.

    `history` holds the epochs as report.json does, `audit` is audit.json, `facts` are tables of names and values by
    their title, `failed` says why a product is missing.
    """

    title: str
    num_classes: int
    classes: Mapping[int, ClassEntry] = dataclasses.field(default_factory=dict)
    state: str = ""  # where the job stands, as in "training: 3 of 10 epochs are done"
    history: Sequence[Mapping[str, Any]] = ()
    epochs: int = 0  # planned
    early: bool = False  # it stopped early
    scored: EvaluationSummary | None = None
    rival: Baseline | None = None
    audit: Mapping[str, Any] | None = None
    facts: Mapping[str, Mapping[str, str]] = dataclasses.field(default_factory=dict)
    failed: Mapping[str, str] = dataclasses.field(default_factory=dict)
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # hyperparameters; empty if not known

    def can_raise(self, name: str) -> bool:
        """Tell whether an option has an effect with the other options of the job."""
        entry = read_schema()["properties"][name]
        return not (
            self.settings and (reason_against(entry, self.settings["algorithm"]) or lacking(entry, self.settings))
        )

    def can_set(self, name: str) -> bool:
        """Tell whether an option has an effect with the others, and still has its default."""
        default = read_schema()["properties"][name].get("default")
        return self.can_raise(name) and bool(self.settings.get(name, default) == default)

    def called(self, label: int) -> str:
        """Call a class by its name, without one "class 3"."""
        return called(self.classes, label)

    @property
    def best(self) -> Mapping[str, Any] | None:
        """The epoch with the highest validation mIOU, the first of several."""
        return max(self.validated, key=lambda entry: entry["mIOU"], default=None)

    @property
    def validated(self) -> Sequence[Mapping[str, Any]]:
        """The epochs that have a score: not all of them, with `_validation_interval`."""
        return [entry for entry in self.history if "mIOU" in entry]
