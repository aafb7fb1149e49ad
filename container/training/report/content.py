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
    """Image for the report, scaled down.

    `image` is uint8 RGB (H, W, 3). `labels` and `prediction` are uint8 (H, W). `errors`, uint8 (H, W), is 0 if the
    prediction is correct, 1 if it is wrong within 3 pixels of a border, 2 if it is wrong elsewhere, and 3 if the pixel
    has no label. `miou` is the mean over the classes in this image. `wrong` is a share of the labeled pixels.
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
    """Labeled and wrong pixels: near (within 3 pixels of a border between labels), and inside (elsewhere)."""

    near: int = 0
    near_wrong: int = 0
    inside: int = 0
    inside_wrong: int = 0

    def __add__(self, other: Borders) -> Borders:
        pairs = zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)
        return Borders(*(mine + its for mine, its in pairs))


@dataclasses.dataclass(frozen=True)
class EvaluationSummary:
    """Result of an evaluation. `confusion` contains pixel counts, (true, predicted), int64 (C, C)."""

    of: str  # description of the images, for example "24 full validation images, with the weights of epoch 7"
    confusion: Int64Array
    images: int
    borders: Borders = Borders()
    worst: Sequence[ExampleImage] = ()
    median: Sequence[ExampleImage] = ()
    best: Sequence[ExampleImage] = ()
    note: str = ""  # limitation of the metrics


@dataclasses.dataclass(frozen=True)
class Baseline:
    """Evaluation of another model on the same images.

    `confusion` is as in EvaluationSummary. `images` contains (mIOU of this model, mIOU of the baseline) per image.
    """

    name: str
    confusion: Int64Array
    images: Mapping[str, tuple[float, float]]


@dataclasses.dataclass(frozen=True)
class Content:
    """Values for the report page of a job or an evaluation.

    `history` contains the epochs as in report.json. `audit` is the content of audit.json. `details` maps titles to
    tables of names and values. `failed` contains the reasons for missing results.
    """

    title: str
    num_classes: int
    classes: Mapping[int, ClassEntry] = dataclasses.field(default_factory=dict)
    state: str = ""  # progress of the job, for example "training: 3 of 10 epochs are complete"
    history: Sequence[Mapping[str, Any]] = ()
    epochs: int = 0  # planned
    early: bool = False  # whether training stopped early
    scored: EvaluationSummary | None = None
    baseline: Baseline | None = None
    audit: Mapping[str, Any] | None = None
    details: Mapping[str, Mapping[str, str]] = dataclasses.field(default_factory=dict)
    failed: Mapping[str, str] = dataclasses.field(default_factory=dict)
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # hyperparameters; empty if not known

    def can_raise(self, name: str) -> bool:
        """Return whether an option has an effect with the other options of the job."""
        entry = read_schema()["properties"][name]
        return not (
            self.settings and (reason_against(entry, self.settings["algorithm"]) or lacking(entry, self.settings))
        )

    def can_set(self, name: str) -> bool:
        """Return whether an option has an effect with the other options, and has its default value."""
        default = read_schema()["properties"][name].get("default")
        return self.can_raise(name) and bool(self.settings.get(name, default) == default)

    def called(self, label: int) -> str:
        """Return the name of a class, or for example "class 3" if the class has no name."""
        return called(self.classes, label)

    @property
    def best(self) -> Mapping[str, Any] | None:
        """The first epoch with the highest validation mIOU."""
        return max(self.validated, key=lambda entry: entry["mIOU"], default=None)

    @property
    def validated(self) -> Sequence[Mapping[str, Any]]:
        """The epochs with validation metrics. With `_validation_interval`, not all epochs have them."""
        return [entry for entry in self.history if "mIOU" in entry]
