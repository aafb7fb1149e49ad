"""Inputs of a training job: open the channels, find the checkpoint, audit the data, and shard it over the hosts.

All errors in the inputs are found here, before MXNet is imported.
"""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

from container.cluster.agreement import check_shards, count_samples, create_shards
from container.cluster.hosts import Hosts
from container.data.audit.audit import Audit, recorded
from container.data.audit.issues import Issue
from container.data.channels import check_channels, used_channels
from container.data.labels.channel import check_label_maps
from container.data.labels.color_maps import ColorMaps
from container.data.loader import Loader
from container.data.samples import Samples, open_samples
from container.environment import Environment
from container.errors import ClientError
from container.hyperparameters import Hyperparameters
from container.mx.weights.initial_weights import check_initial_weights
from container.training.checkpoints.directory import Checkpoint, CheckpointDirectory
from container.training.checkpoints.resume import find_checkpoint, resolve_seed
from container.training.unused_options import explain_idle

LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class JobInputs:
    """Inputs of a job on this host. `checkpoint` is None on all hosts except the first."""

    environment: Environment
    job: Hyperparameters  # with the seed and the number of samples of all hosts
    hosts: Hosts
    samples: dict[str, Samples]  # by channel
    checkpoints: CheckpointDirectory
    checkpoint: Checkpoint | None
    channel_issues: list[Issue]  # of channels that could not be opened
    notes: list[str]  # warnings for the audit

    @property
    def output_dir(self) -> Path:
        """Directory of the audit of this host."""
        return _output_dir(self.environment, self.hosts)


def open_inputs(environment: Environment, job: Hyperparameters, hosts: Hosts) -> JobInputs:
    """Check the configuration of the job, open its channels, and find the checkpoint to resume from."""
    with recorded(_output_dir(environment, hosts)) as notes:
        used = used_channels(environment)
        check_channels(environment)
        check_label_maps(environment.channels, used)
        check_initial_weights(environment, job)
        explain_idle(environment, job)
        samples, issues = _open_channels(environment, used, job)
    checkpoints = CheckpointDirectory(environment.checkpoint_dir)
    checkpoint = find_checkpoint(checkpoints, job, environment.job_name) if hosts.first else None
    job = resolve_seed(_resolve_sample_count(environment, job, hosts, samples.get("train")), checkpoint)
    job = dataclasses.replace(job, seed=hosts.broadcast_integer(job.seed or 0))
    return JobInputs(environment, job, hosts, samples, checkpoints, checkpoint, issues, notes)


def create_loaders(inputs: JobInputs) -> dict[str, Loader]:
    """Audit the channels, and return a loader of this host's shard of each; raises ClientError for unusable data."""
    environment, job, hosts, samples = inputs.environment, inputs.job, inputs.hosts, inputs.samples
    stop, channels = hosts.stop_requested, environment.channels
    sharded = [name for name in used_channels(environment) if channels[name].sharded]
    audit = Audit(
        job, samples, inputs.output_dir, inputs.channel_issues, inputs.notes, sharded, divided=hosts.count > 1
    )
    mode = _audit_mode(environment, job)
    audit.run(mode, stop)
    if not hosts.agree_to_stop() and mode == "full":
        check_shards(hosts, audit, samples, channels)
    if job.counts_classes and not (inputs.checkpoint and inputs.checkpoint.class_counts):
        audit.count_classes("train", stop)
    shards = create_shards(hosts, channels, samples, job.mini_batch_size)
    return {name: Loader(each, job, stop, audit, shards[name]) for name, each in samples.items()}


def _output_dir(environment: Environment, hosts: Hosts) -> Path:
    return environment.output_data_dir / ("" if hosts.first else hosts.name)


def _open_channels(
    environment: Environment, channels: list[str], job: Hyperparameters
) -> tuple[dict[str, Samples], list[Issue]]:
    """Open all channels; also returns the errors of the channels that cannot be opened, for the audit."""
    samples: dict[str, Samples] = {}
    issues: list[Issue] = []
    color_maps = ColorMaps()
    for channel in channels:
        try:
            samples[channel] = open_samples(environment, channel, job, color_maps)
            if "label_map" not in environment.channels:
                LOG.warning("label maps not provided, using defaults.")
            LOG.info("#label_map %s :%s", channel, samples[channel].label_map.content)
        except ClientError as error:
            issues.append(Issue("channel", error.message, error.details))
    return samples, issues


def _audit_mode(environment: Environment, job: Hyperparameters) -> str:
    """Return `_audit`. The default is `fast` for FastFile channels, so that they are not downloaded twice."""
    streamed = any(
        environment.channels[name].input_mode == "FastFile"
        for channel in used_channels(environment)
        for name in {channel, f"{channel}_annotation"} & environment.channels.keys()
    )
    return job.audit or ("fast" if streamed else "full")


def _resolve_sample_count(
    environment: Environment, job: Hyperparameters, hosts: Hosts, train: Samples | None
) -> Hyperparameters:
    """Return the job with the number of training samples. They are counted if the job does not set it."""
    if job.num_training_samples:
        return job
    count = count_samples(hosts, train, environment.channels["train"].sharded)
    if not count:
        return job
    LOG.info("num_training_samples is not set: counted %d training samples", count)
    return dataclasses.replace(job, num_training_samples=count)
