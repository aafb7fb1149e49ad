"""Decision whether a job resumes from a checkpoint."""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from container.artifact import model_directory
from container.errors import ClientError
from container.hyperparameters import Hyperparameters
from container.schema import read_schema
from container.training.checkpoints.directory import WEIGHTS, Checkpoint, CheckpointDirectory


def find_checkpoint(checkpoints: CheckpointDirectory, job: Hyperparameters, job_name: str) -> Checkpoint | None:
    """Return what the job is to go on from; with `_resume=restart` only a checkpoint of its own.

    The platform starts an interrupted job again with the same hyperparameters: what it has written since it began
    anew is not thrown away once more.
    """
    if job.resume == "restart":
        found = checkpoints.newest() if job_name else None
        return found if found and found.identity["job"] == job_name else None
    checkpoints.refuse_first_format()
    return checkpoints.newest()


def resolve_seed(job: Hyperparameters, checkpoint: Checkpoint | None) -> Hyperparameters:
    """Return the job with a seed: its own, else the checkpoint's, else one that is drawn now."""
    if job.seed is not None:
        return job
    drawn = checkpoint.identity["hyperparameters"]["_seed"] if checkpoint else secrets.randbits(32)
    return dataclasses.replace(job, seed=drawn)


def check_identity(checkpoint: Checkpoint, job: Hyperparameters, data: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise one ClientError that names everything by which the job differs from the one that wrote the checkpoint."""
    changes = [*_changed_hyperparameters(checkpoint.identity["hyperparameters"], job.as_dict())]
    changes += [*_changed_data(checkpoint.identity["data"], data)]
    if changes:
        raise ClientError(
            f"this job is not the one whose checkpoint is {checkpoint.folder}: {'; '.join(changes)}. Undo that to go "
            "on, set _resume=restart to train anew (which removes the checkpoints), or give another checkpoint_s3_uri"
        )


def restore_model(checkpoint: Checkpoint, model_dir: Path) -> None:
    """Put the checkpoint's best and last weights into the model directory, as they are."""
    checkpoint.copy_best(model_dir / model_directory.BEST_WEIGHTS)
    model_directory.copy_file(checkpoint.folder / WEIGHTS, model_dir / model_directory.LAST_WEIGHTS)


def _changed_hyperparameters(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Name the hyperparameters that a resumed job may not change, or not in this direction."""
    for name, entry in read_schema()["properties"].items():
        rule, default = entry.get("x-resume", "fixed"), entry.get("default")
        old, new = earlier.get(name, default), now.get(name, default)
        if rule == "may-change" or _plain(old) == _plain(new):
            continue
        if rule == "fixed":
            yield f"{name} was {_told(old)} and is {_told(new)}"
        elif new < old:
            yield f"{name} was {_told(old)} and is {_told(new)}, but may only go up"


def _plain(value: Any) -> Any:
    return "".join(value.split()) if isinstance(value, str) else value


def _told(value: Any) -> str:
    return "not set" if value is None else str(value)


def _changed_data(earlier: Mapping[str, Mapping[str, Any]], now: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Name the channels that hold something else than they did."""
    for channel in sorted({*earlier, *now} - {"test"}):  # which is scored at the end only
        old, new = earlier.get(channel, {}), now.get(channel, {})
        if old.get("samples") != new.get("samples"):
            yield f"channel {channel} held {_samples(old)} and holds {_samples(new)}"
        elif old.get("names") != new.get("names"):
            yield f"channel {channel} holds {_samples(new)} as before, but of other names"
        elif old.get("label_map") != new.get("label_map"):
            yield f"the label map of channel {channel} was {old.get('label_map')} and is {new.get('label_map')}"


def _samples(data: Mapping[str, Any]) -> str:
    count = data.get("samples")
    return "a stream" if count is None else f"{count} samples"
