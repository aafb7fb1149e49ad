"""Checkpoints, from which an interrupted job goes on after its last whole epoch (managed spot training).

https://docs.aws.amazon.com/sagemaker/latest/dg/model-checkpoints.html
"""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil
from pathlib import Path
from typing import Any

import mxnet as mx

from container import artifacts
from container.errors import ClientError, last_line
from container.hyperparameters import Hyperparameters
from container.mx.trainer import Trainer

LOG = logging.getLogger(__name__)

_STATE = "checkpoint.json"
_SAME = ("num_classes", "algorithm", "backbone", "optimizer")  # what a checkpoint's arrays depend on


@dataclasses.dataclass(frozen=True)
class Checkpoints:
    """The checkpoint directory; nothing is written where the platform has made none.

    `checkpoint.json` comes last and names the epoch whose files belong together, so that a write that is cut off
    leaves the checkpoint before it intact.
    """

    folder: Path
    job: Hyperparameters

    def save(self, trainer: Trainer, history: list[dict[str, Any]], best_weights: Path) -> None:
        """Write the state after the last epoch of `history`, then remove what belonged to earlier ones."""
        if not self.folder.is_dir():
            return
        best = max(history, key=lambda entry: entry["mIOU"])["epoch"]
        weights, optimizer, kept = self._files(len(history) - 1, best)
        trainer.save_weights(weights)
        trainer.save_optimizer(optimizer)
        if not kept.exists():
            with artifacts.replacing(kept) as temporary:
                shutil.copyfile(best_weights, temporary)
        identity = {name: getattr(self.job, name) for name in _SAME}
        artifacts.write_json(self.folder / _STATE, {"job": identity, "best": best, "history": history})
        for path in self.folder.glob("*.params"):
            if path not in (weights, optimizer, kept):
                path.unlink()

    def resume(self, trainer: Trainer, best_weights: Path) -> list[dict[str, Any]]:
        """Load the last checkpoint and return its history, empty when there is none.

        Raises ClientError that names the file when the checkpoint is another job's, or damaged.
        """
        path = self.folder / _STATE
        if not path.is_file():
            return []
        try:
            state = json.loads(path.read_text())
            history: list[dict[str, Any]] = state["history"]
            weights, optimizer, kept = self._files(len(history) - 1, state["best"])
            for name, value in state["job"].items():
                if value != getattr(self.job, name):
                    raise ValueError(f"it has {name}={value}, this job {getattr(self.job, name)}")
            trainer.load_weights(weights)
            trainer.load_optimizer(optimizer)
        except (OSError, ValueError, KeyError, TypeError, AssertionError, mx.MXNetError) as error:
            raise ClientError(
                f"{path} cannot be resumed from: {last_line(error)}; use an empty checkpoint_s3_uri, or the same job's"
            ) from error
        best_weights.parent.mkdir(parents=True, exist_ok=True)
        with artifacts.replacing(best_weights) as temporary:
            shutil.copyfile(kept, temporary)
        LOG.info("resuming from %s after epoch %d", self.folder, len(history) - 1)
        return history

    def _files(self, epoch: int, best: int) -> tuple[Path, Path, Path]:
        """Name the files of an epoch's weights and optimizer, and of the best epoch's weights."""
        return (
            self.folder / f"epoch-{epoch}.weights.params",
            self.folder / f"epoch-{epoch}.optimizer.params",
            self.folder / f"best-{best}.weights.params",
        )
