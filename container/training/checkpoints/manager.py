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
from container.data.loader import Loader
from container.errors import PlatformError
from container.mx.checkpoint import load_arrays, save_arrays
from container.mx.trainer import Trainer
from container.training.checkpoints.directory import BEST, OPTIMIZER, SAMPLES, WEIGHTS, Checkpoint
from container.training.checkpoints.progress import JobIdentity, Progress
from container.training.inputs import JobInputs

LOG = logging.getLogger(__name__)

LONG_STEP_SECONDS = 5.0  # iterations of this length can be too long to wait for when a job is stopped
_FALLBACK_SECONDS = 60.0  # between two fallback models


class CheckpointManager:
    """Weights and checkpoints that training writes, and the checkpoint that it restores.

    Every host must call each method at the same point. The first host writes, and holds `writing` during a write.
    """

    def __init__(
        self, inputs: JobInputs, trainer: Trainer, train: Loader, identity: JobIdentity, writing: threading.RLock
    ) -> None:
        self._hosts = inputs.hosts
        self._writing = writing
        self._trainer = trainer
        self._train = train
        self._checkpoints = inputs.checkpoints
        self._identity = identity
        self._seconds = 60 * inputs.job.checkpoint_minutes
        model_dir = inputs.environment.model_dir
        self._written = time.monotonic()
        self._newest = ""  # name of the newest checkpoint
        self._best_name = ""  # name of the progress with the best weights
        self._complete: set[Path] = set()  # files in the model directory that this training wrote
        self._best_path = model_dir / model_directory.BEST_WEIGHTS
        self._last_path = model_dir / model_directory.LAST_WEIGHTS

    def due(self, step_seconds: float) -> Callable[[Progress], None] | None:
        """Return the method that must be called within the epoch now, if any: `checkpoint` or `save_fallback`.

        The latter is due every minute if iterations take so long that the process can exit during one of them.
        """
        since, enabled = time.monotonic() - self._written, self._checkpoints.wanted
        is_long = step_seconds >= LONG_STEP_SECONDS and since >= _FALLBACK_SECONDS
        needs_fallback = is_long and bool(self._seconds or not enabled)
        number = 2 if needs_fallback else int(enabled and 0 < self._seconds <= since)
        return (None, self.checkpoint, self.save_fallback)[self._hosts.broadcast_integer(number)]

    def restore(self, checkpoint: Checkpoint) -> Progress:
        """Load a checkpoint into the trainer, the loader, and the model directory; returns its progress."""
        folder = checkpoint.folder
        if (earlier := checkpoint.identity["devices"]) != self._identity.devices:
            LOG.warning(
                "The checkpoint %s was written on %d devices. This job has %d.", folder, earlier, self._identity.devices
            )
        load_arrays(self._trainer, folder / WEIGHTS, folder / OPTIMIZER, checkpoint.optimizer)
        self._train.restore_class_counts(checkpoint.class_counts)
        self._train.restore_rollover(checkpoint.carried, folder / SAMPLES)
        if checkpoint.best:
            self._write_model(self._best_path, checkpoint.copy_best)
        progress = checkpoint.progress
        self._newest = progress.name
        LOG.info(
            "resuming from %s: %d epochs are done, and %d iterations of the next",
            folder,
            len(progress.history),
            progress.iteration,
        )
        if folder.name != progress.name:
            LOG.warning("A stream is read from its start, so the job repeats all samples of epoch %d.", progress.epoch)
        return progress

    def checkpoint(self, progress: Progress) -> None:
        """Write a checkpoint if this progress has none. If the disk is full, log an error and continue.

        Raises TrainingDivergedError or AlgorithmError if the weights are not valid.
        """
        start = time.monotonic()
        self._trainer.synchronize_replicas()
        if not (self._hosts.first and self._checkpoints.wanted) or progress.name == self._newest:
            return
        path = self._checkpoints.folder / progress.name
        try:
            with self._writing:
                self._checkpoints.write(progress.name, lambda folder: self._write_files(folder, progress))
        except (PlatformError, OSError) as error:
            last = self._checkpoints.last
            LOG.error(
                "The checkpoint %s could not be written. Training continues. If the job is interrupted, it %s. %s",
                path,
                f"resumes from {last}" if last else "trains from the beginning",
                error,
            )
        else:
            self._newest = progress.name
            LOG.info("checkpoint %s written in %.1f s", path, time.monotonic() - start)
        self._written = time.monotonic()

    def save_fallback(self, progress: Progress) -> None:
        """Write a model to the disk before work that cannot be interrupted, so that the process can exit during it."""
        self.checkpoint(progress)
        if progress.best is None:
            self.save_best(progress)
        if not self._hosts.broadcast_integer(self._checkpoints.wanted):
            self.save_last()
        self._written = time.monotonic()

    def complete_model(self) -> bool:
        """Complete the model from the files on the disk, without the devices; returns whether this host has a model."""
        newest = self._checkpoints.last if self._newest and self._hosts.first else None
        sources = [newest / WEIGHTS] if newest else [path for path in (self._best_path,) if path in self._complete]
        for path in (self._best_path, self._last_path):
            if path not in self._complete and sources:
                model_directory.copy_file(sources[0], path)
                self._complete.add(path)
                LOG.warning("%s is a copy of %s", path, sources[0])
        return self._best_path in self._complete

    def save_best(self, progress: Progress) -> None:
        """Write the current weights as the best weights."""
        self._save(self._best_path)
        self._best_name = progress.name

    def save_last(self) -> None:
        """Write the current weights as the last weights."""
        self._save(self._last_path)

    def copy_best_to_last(self) -> None:
        """Write the best weights as the last weights, because the current weights are not usable."""
        self._write_model(self._last_path, lambda path: model_directory.copy_file(self._best_path, path), log=True)

    def return_to_best(self) -> None:
        """Load the best weights of the first host on all hosts, and start a new sequence of checkpoints."""
        content = self._hosts.broadcast(self._best_path.read_bytes)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / self._best_path.name
            path.write_bytes(content)
            self._trainer.load_weights(path)
        self.restart()

    def restart(self) -> None:
        """Reset the optimizer, and write the next checkpoints even if checkpoints with their names exist."""
        self._trainer.reset_optimizer()
        self._newest = self._best_name = ""

    def _save(self, path: Path) -> None:
        self._trainer.share_statistics()
        self._write_model(path, self._trainer.save_weights, log=True)

    def _write_model(self, path: Path, write: Callable[[Path], None], log: bool = False) -> None:
        """Write a file of the model directory, on the first host only."""
        if not self._hosts.first:
            return
        if log:
            LOG.info("Serializing model to %s", path)
        with self._writing:
            write(path)
            self._complete.add(path)

    def _write_files(self, folder: Path, progress: Progress) -> tuple[list[str], dict[str, Any]]:
        """Write the files of a checkpoint to `folder`; returns their names and the other content of the manifest."""
        optimizer = save_arrays(self._trainer, folder / WEIGHTS, folder / OPTIMIZER)
        names, best = [WEIGHTS, OPTIMIZER], None
        if progress.name == self._best_name:
            best = WEIGHTS
        elif progress.best:
            best = BEST
            names.append(BEST)
            model_directory.copy_file(self._best_path, folder / BEST)
        counts = self._train.class_counts
        is_within_epoch = progress.iteration > 0 and not progress.trained
        rollover = self._train.save_rollover(folder / SAMPLES, is_within_epoch)
        if rollover and not self._train.enterable:
            names.append(SAMPLES)
        saved = progress if self._train.enterable else progress.reopen_epoch()
        return names, {
            "progress": dataclasses.asdict(saved),
            "identity": dataclasses.asdict(self._identity),
            "optimizer": optimizer,
            "carried": rollover,
            "best": best,
            "class_counts": counts.as_dict() if counts else None,
        }
