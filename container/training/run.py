"""The steps of a training job, in order."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from tqdm.contrib.logging import logging_redirect_tqdm

from container.artifact import model_directory
from container.data.audit.audit import Audit, recorded
from container.data.audit.issues import Issue
from container.data.channels import check_channels, used_channels
from container.data.hosts import Hosts
from container.data.labels.channel import check_label_maps
from container.data.labels.color_maps import ColorMaps
from container.data.loader import Loader
from container.data.samples import Samples, open_samples
from container.environment import Environment, cpu_count
from container.errors import ClientError, JobCancelledError, JobError
from container.hyperparameters import Hyperparameters
from container.mx.weights.initial_weights import check_initial_weights
from container.training.checkpoints.directory import Checkpoint, CheckpointDirectory
from container.training.checkpoints.progress import JobIdentity, Progress
from container.training.checkpoints.resume import check_identity, find_checkpoint, resolve_seed, restore_model
from container.training.cluster_setup import (
    check_classes,
    check_depths,
    count_samples,
    divide,
    identify,
    joined,
    sent,
    settle,
)
from container.training.metric_log import load_hyperparameters, log_end
from container.training.schedule import explain_schedule
from container.training.shutdown import Shutdown
from container.training.unused_options import explain_idle

if TYPE_CHECKING:
    from container.training.checkpoints.manager import CheckpointManager

LOG = logging.getLogger(__name__)

_UNTRAINED = "stopped on request before anything was trained: there is no model"


def run(
    environment: Environment,
    stop: threading.Event,
    fail: Callable[[JobError], None] = lambda error: None,
    leaving: Shutdown | None = None,
) -> None:
    """Do the job: read everything that can be wrong, train, keep the weights, report. `stop` ends it early.

    When another of several hosts has failed, this process ends at once, after `fail` has been called with the reason.
    `leaving` gets to know what is left to do for a job that ends without its devices.
    """
    train_channel = environment.channels.get("train")
    streamed = train_channel is not None and train_channel.input_mode == "Pipe"
    job = load_hyperparameters(environment, streamed)
    try:
        with joined(environment, job, stop, fail) as hosts:
            _run(environment, job, hosts, stop, leaving or Shutdown(stop))
    except JobCancelledError:
        LOG.warning("stopped on request before all hosts had come: there is no model")


def _run(
    environment: Environment, job: Hyperparameters, hosts: Hosts, requested: threading.Event, leaving: Shutdown
) -> None:
    """Do the job as one of its hosts; `requested` is set when this one is asked to stop."""
    used = used_channels(environment)
    folder = environment.output_data_dir / ("" if hosts.first else hosts.name)
    with recorded(folder) as notes:
        check_channels(environment)
        check_label_maps(environment.channels, used)
        check_initial_weights(environment, job)
        explain_idle(environment, job)
        samples, unopened = _open_all(environment, used, job)
    checkpoints = CheckpointDirectory(environment.checkpoint_dir)
    checkpoint = find_checkpoint(checkpoints, job, environment.job_name) if hosts.first else None
    sharded = {channel: environment.channels[channel].sharded for channel in used}
    job = _settle_count(job, hosts, samples.get("train"), sharded["train"])
    job = settle(resolve_seed(job, checkpoint), hosts)
    leaving.conclude = functools.partial(_end_untrained, environment, job, hosts, checkpoint)
    audit = Audit(
        job, samples, folder, unopened, notes, [name for name in used if sharded[name]], divided=hosts.count > 1
    )
    mode = _audit_mode(environment, job)
    audit.run(mode, requested)
    if not hosts.agree() and mode == "full":
        shards = {name: sharded[name] and samples[name].listed() is not None for name in used}
        check_depths(hosts, audit, shards)
        check_classes(hosts, audit, shards)
    if job.counts_classes and not (checkpoint and checkpoint.class_counts):
        audit.count_classes("train", requested)
    divisions = divide(hosts, environment.channels, samples, job)
    loaders = {channel: Loader(samples[channel], job, requested, audit, divisions[channel]) for channel in used}
    data = identify(hosts, loaders)
    if checkpoint:
        check_identity(checkpoint, job, data)
    os.environ.setdefault("OMP_NUM_THREADS", str(cpu_count()))  # MXNet reads it once, and would take half
    model_directory.remove_temporaries(environment.model_dir)
    stopped = hosts.agree()
    if stopped or not train(environment, job, hosts, loaders, data, checkpoints, checkpoint, requested, leaving):
        _end_untrained(environment, job, hosts, checkpoint)


def train(
    environment: Environment,
    job: Hyperparameters,
    hosts: Hosts,
    loaders: dict[str, Loader],
    data: dict[str, dict[str, Any]],
    checkpoints: CheckpointDirectory,
    checkpoint: Checkpoint | None,
    requested: threading.Event,
    leaving: Shutdown,
) -> bool:
    """Train on the input that `run` has checked; with one host, only from here on the framework is there.

    Returns False when it was stopped before anything was trained; then it has left no model.
    """
    from container.mx.checkpoint import checkpoint_bytes
    from container.mx.devices import choose_devices, resolve_precision
    from container.mx.disk_estimate import check_checkpoint_room, check_disk_space
    from container.mx.optimization.optimizer import explain_optimizer
    from container.mx.precision import advise_precision
    from container.mx.trainer import Trainer
    from container.mx.weights.initial_network import create_initial_network
    from container.training.checkpoints.manager import CheckpointManager
    from container.training.fit import TrainingLoop
    from container.training.report.reporter import Reporter
    from container.training.scoring.final_steps import FinalSteps

    if hosts.stop.is_set():
        return False
    began = time.monotonic()
    devices = choose_devices()
    (all_devices,) = hosts.total(len(devices))
    identity = JobIdentity(job.as_dict(), data, all_devices, environment.job_name)
    job = resolve_precision(job, devices)
    if hosts.first and checkpoint is None:
        advise_precision(job, devices[0], hosts.asked)
    network = create_initial_network(environment, job, devices)
    check_disk_space(network, environment.model_dir, job.quantize is True)
    trainer = Trainer(network, job, devices, hosts)
    keeper = CheckpointManager(
        trainer,
        loaders["train"],
        environment,
        checkpoints,
        identity,
        job.checkpoint_minutes,
        hosts,
        leaving.writing,
    )
    with sent(hosts, checkpoint) as found:
        progress = keeper.restore(found) if found else _begin(job, hosts, checkpoints, loaders["train"])
    leaving.conclude = functools.partial(_conclude, environment, job, hosts, keeper)
    if not hosts.first:
        return TrainingLoop(trainer, job, hosts, keeper, progress).run(loaders["train"], loaders["validation"])
    if checkpoints.wanted:
        needed = check_disk_space(network, environment.model_dir, job.quantize is True)
        size, there = checkpoint_bytes(trainer), checkpoints.size
        check_checkpoint_room(checkpoints.folder, size, there, environment.model_dir, needed)
    explain_optimizer(job, all_devices)
    explain_schedule(job, progress.iterations)
    model_directory.write_json(environment.model_dir / model_directory.HYPERPARAMETERS, job.as_dict())
    reporter = Reporter(environment, job, loaders, _list_devices(hosts, devices))
    reporter.seconds["preparation"] = time.monotonic() - began
    fit, training_started = TrainingLoop(trainer, job, hosts, keeper, progress, reporter), time.time()
    try:
        with logging_redirect_tqdm() if sys.stderr.isatty() else contextlib.nullcontext():  # lines go above the bar
            trained = fit.run(loaders["train"], loaders["validation"])
        if trained:
            finish = FinalSteps(environment, job, trainer, loaders, requested, reporter)
            finish.run(progress.history, progress.epoch_seconds, progress.job_seconds)
            reporter.end(progress.history, "stopped on request" if requested.is_set() else "finished")
            log_end(environment, len(progress.history), training_started)
    except BaseException:
        reporter.end(progress.history, "failed, as output/failure says")
        raise
    if not trained:
        (environment.model_dir / model_directory.HYPERPARAMETERS).unlink()
    return trained


def _list_devices(hosts: Hosts, devices: Sequence[object]) -> str:
    own = ", ".join(map(str, devices))
    return own if hosts.count == 1 else f"{own} on each of {', '.join(hosts.names)}"


def _begin(job: Hyperparameters, hosts: Hosts, checkpoints: CheckpointDirectory, train: Loader) -> Progress:
    """Begin at the beginning; with `_resume=restart` what earlier jobs have left would pass for this one's."""
    if job.resume == "restart" and hosts.first:
        checkpoints.clear()
    if checkpoints.wanted:
        LOG.info("there is no whole checkpoint in %s: training begins at its beginning", checkpoints.folder)
    planned = train.division.passes if train.enterable else 0  # of shards it follows from the longest
    return Progress(iterations=planned or max(1, job.num_training_samples // job.mini_batch_size))


def _end_untrained(environment: Environment, job: Hyperparameters, hosts: Hosts, checkpoint: Checkpoint | None) -> None:
    """Say that this start has trained nothing; a checkpoint's weights are the model all the same."""
    if not hosts.first:
        return
    if checkpoint is None:
        LOG.warning(_UNTRAINED)
        return
    restore_model(checkpoint, environment.model_dir)
    model_directory.write_json(environment.model_dir / model_directory.HYPERPARAMETERS, job.as_dict())
    LOG.warning("stopped on request before this start trained anything: the model is that of %s", checkpoint.folder)


def _conclude(environment: Environment, job: Hyperparameters, hosts: Hosts, keeper: CheckpointManager) -> None:
    """End a training whose devices are not waited for, with the model that is on the disk."""
    if hosts.first and keeper.conclude():
        model_directory.write_json(environment.model_dir / model_directory.HYPERPARAMETERS, job.as_dict())
    elif hosts.first:
        (environment.model_dir / model_directory.HYPERPARAMETERS).unlink(missing_ok=True)
        LOG.warning(_UNTRAINED)
    model_directory.remove_temporaries(environment.model_dir)  # at the very end: what goes on may begin another


def _open_all(
    environment: Environment, channels: list[str], job: Hyperparameters
) -> tuple[dict[str, Samples], list[Issue]]:
    """Open the channels' samples; what is wrong with one does not hide what is wrong with another."""
    samples: dict[str, Samples] = {}
    faults: list[Issue] = []
    color_maps = ColorMaps()
    for channel in channels:
        try:
            samples[channel] = open_samples(environment, channel, job, color_maps)
            if "label_map" not in environment.channels:
                LOG.warning("label maps not provided, using defaults.")
            LOG.info("#label_map %s :%s", channel, samples[channel].label_map.content)
        except ClientError as error:
            faults.append(Issue("channel", error.message, error.details))
    return samples, faults


def _audit_mode(environment: Environment, job: Hyperparameters) -> str:
    """Return the job's `_audit`; without one what FastFile streams is not read twice."""
    streamed = any(
        environment.channels[name].input_mode == "FastFile"
        for channel in used_channels(environment)
        for name in {channel, f"{channel}_annotation"} & environment.channels.keys()
    )
    return job.audit or ("fast" if streamed else "full")


def _settle_count(job: Hyperparameters, hosts: Hosts, train: Samples | None, sharded: bool) -> Hyperparameters:
    """Count the training samples where the job does not say how many they are."""
    if job.num_training_samples:
        return job
    count = count_samples(hosts, train, sharded)
    if not count:
        return job
    LOG.info("num_training_samples is not given: %d training samples were counted", count)
    return dataclasses.replace(job, num_training_samples=count)
