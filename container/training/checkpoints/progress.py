"""Progress and identity of a job, as stored in a checkpoint."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass
class Progress:
    """Where training stands: the next step is step `iteration` of `epoch`, both counted from 0.

    Whether it has stopped early follows from `history`.
    """

    iterations: int  # of an epoch, as announced and then as learnt
    epoch: int = 0
    iteration: int = 0  # steps made in this epoch
    groups: int = 0  # taken from this epoch's pass, those without a usable sample included
    samples: int = 0
    loss: float = 0.0  # sum of the epoch's losses so far
    trained: bool = False  # the pass is done, the epoch's score is not there yet
    steps: int = 0  # made in the epochs before
    seconds: float = 0.0  # that training has taken in this epoch so far, in all starts
    lowered: bool = False  # the learning rate, after training had diverged
    history: list[dict[str, Any]] = dataclasses.field(default_factory=list)  # values of each complete epoch
    # An epoch between two validations has no mIOU.

    @property
    def name(self) -> str:
        """What a checkpoint of this moment is called."""
        return f"{self.epoch}-{self.iteration}"

    @property
    def best(self) -> dict[str, Any] | None:
        """The values of the epoch with the best mIOU; None before the first."""
        return max(self.scored, key=lambda entry: entry["mIOU"], default=None)

    @property
    def scored(self) -> list[dict[str, Any]]:
        """The values of the epochs that were validated."""
        return [entry for entry in self.history if "mIOU" in entry]

    @property
    def job_seconds(self) -> float:
        """The seconds of training and validation so far, in all starts of the job."""
        return self.seconds + sum(map(_seconds, self.history))

    @property
    def epoch_seconds(self) -> float:
        """The mean seconds of a complete epoch; in the first epoch, an estimate of its duration."""
        if self.history:
            return sum(map(_seconds, self.history)) / len(self.history)
        return self.seconds * self.iterations / max(1, self.iteration)

    def close_epoch(self, values: Mapping[str, Any]) -> None:
        """Add the values of the complete epoch, and start the next one."""
        self.history.append({"epoch": self.epoch, **values})
        self.epoch += 1
        self.steps += self.iteration
        self._reset()

    def reopen_epoch(self) -> Progress:
        """Return the same at the beginning of the epoch's pass, for input that cannot be entered in its midst."""
        if self.trained:
            return self
        again = dataclasses.replace(self)
        again._reset()
        return again

    def return_to(self, earlier: Progress) -> None:
        """Stand again where `earlier`, of the same epoch, stands."""
        self.iteration, self.groups = earlier.iteration, earlier.groups
        self.samples, self.loss, self.seconds = earlier.samples, earlier.loss, earlier.seconds

    def begin_again(self) -> None:
        """Stand at the beginning of the epoch again, with a lower learning rate."""
        self.lowered = True
        self._reset()

    def _reset(self) -> None:
        self.iteration = self.groups = self.samples = 0
        self.loss, self.seconds, self.trained = 0.0, 0.0, False


def _seconds(entry: Mapping[str, Any]) -> float:
    return (entry.get("train_seconds") or 0.0) + (entry.get("validation_seconds") or 0.0)


@dataclasses.dataclass(frozen=True)
class JobIdentity:
    """What a job is made from, which a checkpoint of it must share."""

    hyperparameters: Mapping[str, Any]  # as they were asked for, by the schema's names; the seed as it was drawn
    data: Mapping[str, Mapping[str, Any]]  # what each channel holds
    devices: int
    job: str  # name of the job on SageMaker AI, or empty
