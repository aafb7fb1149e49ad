"""Files that training writes: best and last weights, and checkpoints."""

from __future__ import annotations

import dataclasses
import logging
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from container.artifact import model_directory
from container.data.hosts import Hosts
from container.data.loader import Loader
from container.environment import Environment
from container.errors import PlatformError
from container.mx.checkpoint import load_arrays, save_arrays
from container.mx.trainer import Trainer
from container.training.checkpoints.directory import BEST, OPTIMIZER, SAMPLES, WEIGHTS, Checkpoint, CheckpointDirectory
from container.training.checkpoints.progress import JobIdentity, Progress

LOG = logging.getLogger(__name__)

LONG_STEP_SECONDS = 5.0  # from which on a stopped job may have to end without waiting for the step under way
_SECURE_SECONDS = 60.0  # between two times that such a job writes what it would end with


class CheckpointManager:
    """Writes and restores what outlives a step; `minutes` is the time between an epoch's checkpoints, 0 for none.

    Every host calls everything at the same point; the first one writes, and holds `writing` meanwhile.
    """

    def __init__(
        self,
        trainer: Trainer,
        train: Loader,
        environment: Environment,
        checkpoints: CheckpointDirectory,
        identity: JobIdentity,
        minutes: float,
        hosts: Hosts,
        writing: threading.RLock,
    ) -> None:
        self._hosts = hosts
        self._writing = writing
        self._trainer = trainer
        self._train = train
        self._checkpoints = checkpoints
        self._identity = identity
        self._seconds = 60 * minutes
        self._written = time.monotonic()
        self._kept = ""  # the last checkpoint's moment
        self._improved = ""  # the best weights' moment
        self._done: set[Path] = set()  # weights in the model directory that are this training's
        self.best_path = environment.model_dir / model_directory.BEST_WEIGHTS
        self._last_path = environment.model_dir / model_directory.LAST_WEIGHTS

    def due(self, step_seconds: float) -> Callable[[Progress], None] | None:
        """Return what is to be written within the epoch now, if anything: `checkpoint` or `secure`.

        The latter every minute where a step takes so long that a stop may not wait for it.
        """
        since, wanted = time.monotonic() - self._written, self._checkpoints.wanted
        is_long = step_seconds >= LONG_STEP_SECONDS and since >= _SECURE_SECONDS and bool(self._seconds or not wanted)
        number = 2 if is_long else int(wanted and 0 < self._seconds <= since)
        (number,) = self._hosts.total(number if self._hosts.first else 0)
        return (None, self.checkpoint, self.secure)[number]

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
            self._done.add(self.best_path)
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
        """Write a checkpoint of this moment, unless there is one; Diverged and AlgorithmError say what forbids it.

        A disk that refuses it is told of, and ends no job: its model is elsewhere.
        """
        start = time.monotonic()
        self._trainer.synchronize_replicas()
        if not (self._hosts.first and self._checkpoints.wanted) or progress.name == self._kept:
            return
        path = self._checkpoints.folder / progress.name
        try:
            with self._writing:
                self._checkpoints.write(progress.name, lambda folder: self._write(folder, progress))
        except (PlatformError, OSError) as error:
            last = self._checkpoints.last
            LOG.error(
                "the checkpoint %s could not be written, and training goes on: an interrupted job would %s. %s",
                path,
                f"go on from {last}" if last else "begin anew",
                error,
            )
        else:
            self._kept = progress.name
            LOG.info("checkpoint %s written in %.1f s", path, time.monotonic() - start)
        self._written = time.monotonic()

    def secure(self, progress: Progress) -> None:
        """Put a model on the disk before work that nothing interrupts, so that the process can end within it."""
        self.checkpoint(progress)
        if progress.best is None:
            self.best(progress)
        if not self._hosts.decide(self._checkpoints.wanted):
            self.last()
        self._written = time.monotonic()

    def conclude(self) -> bool:
        """Complete the model from what is on the disk, without the devices; returns whether there is one."""
        if not self._hosts.first:
            return True
        newest = self._checkpoints.last if self._kept else None
        sources = [newest / WEIGHTS] if newest else [path for path in (self.best_path,) if path in self._done]
        for path in (self.best_path, self._last_path):
            if path not in self._done and sources:
                model_directory.copy_file(sources[0], path)
                self._done.add(path)
                LOG.warning("%s is a copy of %s", path, sources[0])
        return self.best_path in self._done

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
            with self._writing:
                model_directory.copy_file(self.best_path, self._last_path)
                self._done.add(self._last_path)

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
        with self._writing:
            self._trainer.save_weights(path)
            self._done.add(path)

    def _write(self, folder: Path, progress: Progress) -> tuple[list[str], dict[str, Any]]:
        """Put all files of a checkpoint into `folder`; returns their names and what the manifest says besides."""
        optimizer = save_arrays(self._trainer, folder / WEIGHTS, folder / OPTIMIZER)
        names, best = [WEIGHTS, OPTIMIZER], None
        if progress.name == self._improved:
            best = WEIGHTS
        elif progress.best:
            best = BEST
            names.append(BEST)
            model_directory.copy_file(self.best_path, folder / BEST)
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
