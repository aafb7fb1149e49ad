"""What a job keeps on disk while it trains: the best and the last weights, and checkpoints of its whole state."""

from __future__ import annotations

import dataclasses
import logging
import tempfile
import time
from pathlib import Path
from typing import Any

from container import artifacts
from container.data.hosts import Hosts
from container.data.loader import Loader
from container.environment import Environment
from container.mx.checkpoint import load_arrays, save_arrays
from container.mx.trainer import Trainer
from container.training.checkpoints import BEST, OPTIMIZER, SAMPLES, WEIGHTS, Checkpoint, Checkpoints
from container.training.progress import Identity, Progress

LOG = logging.getLogger(__name__)


class Keeper:
    """Writes and restores what outlives a step; `minutes` is the time between an epoch's checkpoints, 0 for none.

    Every host calls everything at the same point; the first one writes.
    """

    def __init__(
        self,
        trainer: Trainer,
        train: Loader,
        environment: Environment,
        checkpoints: Checkpoints,
        identity: Identity,
        minutes: float,
        hosts: Hosts,
    ) -> None:
        self._hosts = hosts
        self._trainer = trainer
        self._train = train
        self._checkpoints = checkpoints
        self._identity = identity
        self._seconds = 60 * minutes
        self._written = time.monotonic()
        self._kept = ""  # the last checkpoint's moment
        self._improved = ""  # the best weights' moment
        self.best_path = environment.model_dir / artifacts.BEST_WEIGHTS
        self._last_path = environment.model_dir / artifacts.LAST_WEIGHTS

    @property
    def due(self) -> bool:
        """Whether it is time for a checkpoint within the epoch."""
        return self._hosts.decide(self._checkpoints.wanted and 0 < self._seconds <= time.monotonic() - self._written)

    def restore(self, checkpoint: Checkpoint) -> Progress:
        """Load a checkpoint into trainer, loader and model directory; returns how far it is."""
        folder = checkpoint.folder
        if (earlier := checkpoint.identity["devices"]) != self._identity.devices:
            LOG.warning("%s was written on %d devices, this start has %d", folder, earlier, self._identity.devices)
        load_arrays(self._trainer, folder / WEIGHTS, folder / OPTIMIZER, checkpoint.optimizer)
        self._train.restore_class_counts(checkpoint.class_counts)
        self._train.restore_carried(checkpoint.carried, folder / SAMPLES)
        if checkpoint.best and self._hosts.first:
            checkpoint.copy_best(self.best_path)
        progress = checkpoint.progress
        self._kept = progress.name
        LOG.info(
            "resuming from %s: %d epochs are done, and %d iterations of the next",
            folder,
            len(progress.history),
            progress.iteration,
        )
        if folder.name != progress.name:
            LOG.warning("a stream cannot be entered in its midst: epoch %d sees all its samples again", progress.epoch)
        return progress

    def checkpoint(self, progress: Progress) -> None:
        """Write a checkpoint of this moment, unless there is one; Diverged and AlgorithmError say what forbids it."""
        start = time.monotonic()
        self._trainer.unite()
        if not (self._hosts.first and self._checkpoints.wanted) or progress.name == self._kept:
            return
        self._checkpoints.write(progress.name, lambda folder: self._write(folder, progress))
        self._kept, self._written = progress.name, time.monotonic()
        LOG.info("checkpoint %s written in %.1f s", self._checkpoints.folder / progress.name, self._written - start)

    def best(self, progress: Progress) -> None:
        """Write the weights of this moment as the best so far."""
        self._save(self.best_path)
        self._improved = progress.name

    def last(self) -> None:
        """Write the weights of this moment as the last ones."""
        self._save(self._last_path)

    def last_is_best(self) -> None:
        """Let the best weights be the last ones too, where those of this moment are of no use."""
        if self._hosts.first:
            LOG.info("Serializing model to %s", self._last_path)
            artifacts.copy_file(self.best_path, self._last_path)

    def return_to_best(self) -> None:
        """Let all trainers go on from the best weights; no checkpoint counts as one of what follows."""
        if self._hosts.count == 1:
            self._trainer.load_weights(self.best_path)
        else:
            content = self._hosts.send(self.best_path.read_bytes)
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / self.best_path.name
                path.write_bytes(content)
                self._trainer.load_weights(path)
        self.restart()

    def restart(self) -> None:
        """Let the next checkpoints be written whatever they are called: training goes another way from here."""
        self._trainer.forget()
        self._kept = self._improved = ""

    def _save(self, path: Path) -> None:
        self._trainer.share_statistics()
        if not self._hosts.first:
            return
        LOG.info("Serializing model to %s", path)
        self._trainer.save_weights(path)

    def _write(self, folder: Path, progress: Progress) -> tuple[list[str], dict[str, Any]]:
        """Put all files of a checkpoint into `folder`; returns their names and what the manifest says besides."""
        optimizer = save_arrays(self._trainer, folder / WEIGHTS, folder / OPTIMIZER)
        names, best = [WEIGHTS, OPTIMIZER], None
        if progress.name == self._improved:
            best = WEIGHTS
        elif progress.best:
            best = BEST
            names.append(BEST)
            artifacts.copy_file(self.best_path, folder / BEST)
        counts = self._train.class_counts
        under_way = progress.iteration > 0 and not progress.trained
        carried = self._train.keep_carried(folder / SAMPLES, under_way)
        if carried and not self._train.enterable:
            names.append(SAMPLES)
        kept = progress if self._train.enterable else progress.reopen_epoch()
        return names, {
            "progress": dataclasses.asdict(kept),
            "identity": dataclasses.asdict(self._identity),
            "optimizer": optimizer,
            "carried": carried,
            "best": best,
            "class_counts": counts.as_dict() if counts else None,
        }
