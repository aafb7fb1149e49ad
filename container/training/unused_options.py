"""Options that have no effect with the input mode, hosts, or checkpoints of the job."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from container.data.channels import used_channels
from container.environment import Environment
from container.hyperparameters import Hyperparameters
from container.schema import read_schema

LOG = logging.getLogger(__name__)


def explain_idle(environment: Environment, job: Hyperparameters) -> None:
    """Log each option that was changed from its default and has no effect in this environment."""
    properties = read_schema()["properties"]
    values = job.as_dict()
    for name, reason in _idle(environment, job):
        if name in values and values[name] != properties[name].get("default"):
            LOG.warning("%s=%s has no effect: %s", name, values[name], reason)


def _idle(environment: Environment, job: Hyperparameters) -> Iterator[tuple[str, str]]:
    train = environment.channels.get("train")
    if train is None or train.input_mode != "Pipe":
        reason = "it is for Pipe mode, and a channel of files is shuffled as a whole"
        if job.shuffle_buffer:
            yield "_shuffle_buffer", reason
        yield "_shuffle_buffer_mb", reason
    if all(environment.channels[name].input_mode == "Pipe" for name in used_channels(environment)):
        yield "_audit", "a stream is not read before training; its audit is the first pass"
    if len(environment.hosts) == 1:
        yield "_ps_port", "the job has one host"
        yield "_network_interface", "the job has one host"
    if not environment.checkpoint_dir.is_dir():
        reason = f"there is no directory {environment.checkpoint_dir}; set checkpoint_s3_uri"
        yield "_checkpoint_minutes", reason
        yield "_resume", reason
