"""The checkpoint directory: valid checkpoints, and which ones are retained.

Each checkpoint is a directory `<epoch>-<iteration>` that proves itself (see `manifest`). What is not known to be this
program's is never touched. https://docs.aws.amazon.com/sagemaker/latest/dg/model-checkpoints.html
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from container.artifact import model_directory
from container.errors import ClientError, PlatformError
from container.training.checkpoints.manifest import (
    MANIFEST,
    IncompleteCheckpointError,
    prove_files,
    read_manifest,
    write_manifest,
)
from container.training.checkpoints.progress import Progress

LOG = logging.getLogger(__name__)

WEIGHTS, OPTIMIZER, BEST, SAMPLES = "weights.params", "optimizer.params", "best.params", "samples.rec"
FORMAT = 2  # 1: the first version, one checkpoint.json next to *.params

_KEPT = 2
_NAME = re.compile(r"\d+-\d+")
_OWN = re.compile(  # also incomplete ones, and marker files of the SageMaker AI agent
    rf"\.?({'|'.join(map(re.escape, (WEIGHTS, OPTIMIZER, BEST, SAMPLES, MANIFEST)))})"
    r"(\.\d+)?(\.sagemaker-uploading|\.sagemaker-uploaded)?"
)
_FIRST_FORMAT = "checkpoint.json"


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint: its directory and the content of its manifest."""

    folder: Path
    number: int  # of all checkpoints of this training, this one is the number-th
    progress: Progress
    identity: Mapping[str, Any]
    optimizer: Mapping[str, Any]  # state of the optimizer in addition to its arrays
    carried: list[dict[str, Any]]  # samples that open the pass
    best: str | None  # the file of the best weights so far
    class_counts: Mapping[str, Any] | None = None  # of the training channel, once they are known

    def copy_best(self, path: Path) -> None:
        """Write the best weights so far to `path`, those of this moment when no epoch is whole yet."""
        model_directory.copy_file(self.folder / (self.best or WEIGHTS), path)


class CheckpointDirectory:
    """The checkpoints below one directory; nothing is written where the platform has made none."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._number = 0
        self._kept: list[Path] = []  # the newest last, all of them proven

    @property
    def last(self) -> Path | None:
        """The newest whole one of this training, as far as it was written or found by this process."""
        return self._kept[-1] if self._kept else None

    @property
    def size(self) -> int:
        """How many bytes this program's files take, those of checkpoints that are not whole included."""
        files = (path for folder in self._own() for path in folder.iterdir() if _OWN.fullmatch(path.name))
        return sum(path.stat().st_size for path in files)

    @property
    def wanted(self) -> bool:
        """Whether there is a directory to write to."""
        return self.folder.is_dir()

    def newest(self) -> Checkpoint | None:
        """Return the newest checkpoint that proves whole, and say why newer ones do not."""
        for found in sorted(self._readable(), key=lambda each: each.number, reverse=True):
            try:
                prove_files(found.folder)
            except IncompleteCheckpointError as reason:
                _pass_over(found.folder, reason)
                continue
            self._number, self._kept = found.number, [found.folder]
            self._remove(lambda folder: not (folder / MANIFEST).exists())
            return found
        return None

    def refuse_first_format(self) -> None:
        """Raise ClientError when all there is was written by this program's first version."""
        if (self.folder / _FIRST_FORMAT).is_file() and not self._own():
            raise ClientError(
                f"{self.folder / _FIRST_FORMAT} is a checkpoint of an earlier version of this program, which cannot be "
                "resumed from: finish that job with the earlier version, give another checkpoint_s3_uri, or set "
                "_resume=restart to train from scratch (its files stay there)"
            )

    def write(self, name: str, make: Callable[[Path], tuple[list[str], dict[str, Any]]]) -> None:
        """Write a checkpoint: `make` writes the files into its directory, and returns their names and the content.

        Then remove all but the two newest complete checkpoints. If the disk rejects the new one, remove the older of
        the two, and try again. Raises PlatformError or OSError if that fails, too; the newest complete one remains.
        """
        folder = self.folder / name
        if folder.exists() and folder not in self._own():
            raise ClientError(f"{folder} has the name of the next checkpoint, but is not a checkpoint. Move it.")
        self._kept = [each for each in self._kept if each != folder]
        try:
            self._make(folder, make)
        except (PlatformError, OSError) as error:
            self._kept = self._kept[-1:]
            older = [each for each in self._own() if self._kept and each not in (folder, *self._kept)]
            with contextlib.suppress(OSError):  # the disk can reject that, too
                self._remove(lambda each: each == folder or each in older)
            if not older:
                raise
            LOG.warning("the older checkpoint %s is removed to make room for %s: %s", older[0], folder, error)
            try:
                self._make(folder, make)
            except (PlatformError, OSError):
                with contextlib.suppress(OSError):
                    self._remove(lambda each: each == folder)
                raise
        self._kept = [*self._kept, folder][-_KEPT:]
        self._remove(lambda folder: folder not in self._kept)

    def _make(self, folder: Path, make: Callable[[Path], tuple[list[str], dict[str, Any]]]) -> None:
        """Write a checkpoint's files, its manifest last."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MANIFEST).unlink(missing_ok=True)  # from here on it proves nothing, until it proves this
        names, content = make(folder)
        write_manifest(folder, names, {"format": FORMAT, "number": self._number + 1, **content})
        self._number += 1

    def clear(self) -> None:
        """Remove all checkpoints, complete or not, to train from scratch."""
        if count := len(self._own()):
            LOG.warning("training starts from scratch: %d earlier checkpoints in %s are removed", count, self.folder)
        self._number, self._kept = 0, []
        self._remove(lambda folder: True)

    def _readable(self) -> list[Checkpoint]:
        found = []
        for folder in self._own():
            try:
                found.append(_read(folder))
            except IncompleteCheckpointError as reason:
                _pass_over(folder, reason)
        return found

    def _own(self) -> list[Path]:
        """List what is named like a checkpoint and is one: a manifest proves it, or nothing else lies in it."""
        if not self.folder.is_dir():
            return []
        named = [path for path in sorted(self.folder.iterdir()) if _NAME.fullmatch(path.name)]
        return [path for path in named if path.is_dir() and not path.is_symlink() and _is_own(path)]

    def _remove(self, unwanted: Callable[[Path], bool]) -> None:
        """Remove unwanted checkpoints, their manifest first, and half-written files in those that are kept."""
        for folder in self._own():
            gone = unwanted(folder)
            for path in sorted(folder.iterdir(), key=lambda path: path.name != MANIFEST):
                if _OWN.fullmatch(path.name) and (gone or path.name.startswith(".")):
                    path.unlink(missing_ok=True)
            if gone:
                with contextlib.suppress(OSError):  # the directory contains a file of another program
                    folder.rmdir()


def _is_own(folder: Path) -> bool:
    if all(_OWN.fullmatch(path.name) and path.is_file() for path in folder.iterdir()):
        return True
    try:
        read_manifest(folder)
    except IncompleteCheckpointError:
        return False
    return True


def _read(folder: Path) -> Checkpoint:
    content = read_manifest(folder)
    try:
        if content["format"] != FORMAT:
            raise IncompleteCheckpointError(f"it has format {content['format']}, this program reads {FORMAT}")
        return Checkpoint(
            folder=folder,
            number=content["number"],
            progress=Progress(**content["progress"]),
            identity=content["identity"],
            optimizer=content["optimizer"],
            carried=content["carried"],
            best=content["best"],
            class_counts=content.get("class_counts"),
        )
    except (KeyError, TypeError) as error:
        raise IncompleteCheckpointError(
            f"{MANIFEST} lacks what this program needs: {type(error).__name__}: {error}"
        ) from error


def _pass_over(folder: Path, reason: IncompleteCheckpointError) -> None:
    LOG.warning("The checkpoint %s is skipped: %s", folder, reason)
