"""Decision whether a job resumes from a checkpoint."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import secrets
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from container.artifact import model_directory
from container.cluster.hosts import Hosts
from container.errors import ClientError
from container.hyperparameters import Hyperparameters
from container.schema import read_schema
from container.training.checkpoints.directory import WEIGHTS, Checkpoint, CheckpointDirectory


def find_checkpoint(checkpoints: CheckpointDirectory, job: Hyperparameters, job_name: str) -> Checkpoint | None:
    """Return the checkpoint that the job resumes from, or None; with `_resume=restart`, only a checkpoint of this job.

    SageMaker AI restarts an interrupted job with the same hyperparameters. `_resume=restart` must not delete the
    checkpoints that the job itself has written.
    """
    if job.resume == "restart":
        newest = checkpoints.newest() if job_name else None
        return newest if newest and newest.identity["job"] == job_name else None
    checkpoints.refuse_first_format()
    return checkpoints.newest()


def resolve_seed(job: Hyperparameters, checkpoint: Checkpoint | None) -> Hyperparameters:
    """Return the job with a seed: the seed that it sets, the seed of the checkpoint, or a random seed."""
    if job.seed is not None:
        return job
    seed = checkpoint.identity["hyperparameters"]["_seed"] if checkpoint else secrets.randbits(32)
    return dataclasses.replace(job, seed=seed)


def check_identity(checkpoint: Checkpoint, job: Hyperparameters, data: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise one ClientError that lists all differences from the job that wrote the checkpoint."""
    changes = [*_changed_hyperparameters(checkpoint.identity["hyperparameters"], job.as_dict())]
    changes += [*_changed_data(checkpoint.identity["data"], data)]
    if changes:
        raise ClientError(
            f"this job is not the one whose checkpoint is {checkpoint.folder}: {'; '.join(changes)}. Undo the "
            "changes, set _resume=restart to train from scratch (it removes the checkpoints), or use another "
            "checkpoint_s3_uri."
        )


@contextlib.contextmanager
def broadcast_checkpoint(hosts: Hosts, checkpoint: Checkpoint | None) -> Iterator[Checkpoint | None]:
    """Send the checkpoint of the first host to every host, which has it in a temporary directory during the block."""
    if hosts.count == 1 or not hosts.broadcast_integer(checkpoint is not None):
        yield checkpoint
        return
    folder = checkpoint.folder if checkpoint else Path()
    names = [path.name for path in sorted(folder.iterdir())] if checkpoint else []
    name, names = json.loads(hosts.broadcast(lambda: json.dumps([folder.name, names]).encode()))
    with tempfile.TemporaryDirectory() as temporary:
        copy = Path(temporary) / Path(name).name
        copy.mkdir()
        for each in map(os.path.basename, names):
            content = hosts.broadcast((folder / each).read_bytes)
            if not hosts.first:
                (copy / each).write_bytes(content)
        yield checkpoint or CheckpointDirectory(Path(temporary)).newest()  # verifies the hashes of the copy


def restore_model(checkpoint: Checkpoint, model_dir: Path) -> None:
    """Copy the best and last weights of the checkpoint to the model directory."""
    checkpoint.copy_best(model_dir / model_directory.BEST_WEIGHTS)
    model_directory.copy_file(checkpoint.folder / WEIGHTS, model_dir / model_directory.LAST_WEIGHTS)


def _changed_hyperparameters(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Describe the changes of hyperparameters that a resumed job must not change, or must not decrease."""
    for name, entry in read_schema()["properties"].items():
        rule, default = entry.get("x-resume", "fixed"), entry.get("default")
        old, new = earlier.get(name, default), now.get(name, default)
        if rule == "may-change" or _plain(old) == _plain(new):
            continue
        if rule == "fixed":
            yield f"{name} was {_describe(old)} and is {_describe(new)}"
        elif new < old:
            yield f"{name} was {_describe(old)} and is {_describe(new)}, but may only go up"


def _plain(value: Any) -> Any:
    return "".join(value.split()) if isinstance(value, str) else value


def _describe(value: Any) -> str:
    return "not set" if value is None else str(value)


def _changed_data(earlier: Mapping[str, Mapping[str, Any]], now: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Describe the channels whose samples or label maps have changed."""
    for channel in sorted({*earlier, *now} - {"test"}):  # evaluated only at the end
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
