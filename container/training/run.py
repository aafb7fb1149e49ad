"""The story of a training job: read everything that can be wrong, train, keep the weights, report."""

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

from container import artifacts, hyperparameters
from container.data.audit.audit import Audit, recorded
from container.data.audit.faults import Fault
from container.data.channels import check_channels, used_channels
from container.data.colours import ColourMaps
from container.data.hosts import Hosts
from container.data.label_maps import check_label_maps
from container.data.loader import Loader
from container.data.samples import Samples, open_samples
from container.environment import Environment, cpu_count
from container.errors import Cancelled, ClientError, JobError
from container.hyperparameters import Hyperparameters
from container.mx.initial_weights import check_initial_weights
from container.training.checkpoints import Checkpoint, Checkpoints
from container.training.idle import explain_idle
from container.training.leaving import Leaving
from container.training.progress import Identity, Progress
from container.training.resume import check_identity, find_checkpoint, hand_over, settle_seed
from container.training.schedule import explain_schedule
from container.training.together import (
    check_classes,
    check_depths,
    count_samples,
    divide,
    identify,
    joined,
    sent,
    settle,
)

if TYPE_CHECKING:
    from container.training.keeper import Keeper

LOG = logging.getLogger(__name__)

_UNTRAINED = "stopped on request before anything was trained: there is no model"


def run(
    environment: Environment,
    stop: threading.Event,
    fail: Callable[[JobError], None] = lambda error: None,
    leaving: Leaving | None = None,
) -> None:
    """Do the job: read everything that can be wrong, train, keep the weights, report. `stop` ends it early.

    When another of several hosts has failed, this process ends at once, after `fail` has been called with the reason.
    `leaving` gets to know what is left to do for a job that ends without its devices.
    """
    train_channel = environment.channels.get("train")
    streamed = train_channel is not None and train_channel.input_mode == "Pipe"
    job = hyperparameters.load(environment.hyperparameters, streamed)
    try:
        with joined(environment, job, stop, fail) as hosts:
            _run(environment, job, hosts, stop, leaving or Leaving(stop))
    except Cancelled:
        LOG.warning("stopped on request before all hosts had come: there is no model")


def _run(
    environment: Environment, job: Hyperparameters, hosts: Hosts, requested: threading.Event, leaving: Leaving
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
    checkpoints = Checkpoints(environment.checkpoint_dir)
    checkpoint = find_checkpoint(checkpoints, job, environment.job_name) if hosts.first else None
    sharded = {channel: environment.channels[channel].sharded for channel in used}
    job = _settle_count(job, hosts, samples.get("train"), sharded["train"])
    job = settle(settle_seed(job, checkpoint), hosts)
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
    artifacts.remove_temporaries(environment.model_dir)
    stopped = hosts.agree()
    if stopped or not train(environment, job, hosts, loaders, data, checkpoints, checkpoint, requested, leaving):
        _end_untrained(environment, job, hosts, checkpoint)


def train(
    environment: Environment,
    job: Hyperparameters,
    hosts: Hosts,
    loaders: dict[str, Loader],
    data: dict[str, dict[str, Any]],
    checkpoints: Checkpoints,
    checkpoint: Checkpoint | None,
    requested: threading.Event,
    leaving: Leaving,
) -> bool:
    """Train on the input that `run` has checked; with one host, only from here on the framework is there.

    Returns False when it was stopped before anything was trained; then it has left no model.
    """
    from container.mx.checkpoint import checkpoint_bytes
    from container.mx.devices import choose_devices, settle_precision
    from container.mx.optimizer import explain_optimizer
    from container.mx.precision import advise_precision
    from container.mx.room import check_checkpoint_room, check_room
    from container.mx.start import start_network
    from container.mx.trainer import Trainer
    from container.training.finish import Finish
    from container.training.fit import Fit
    from container.training.keeper import Keeper
    from container.training.report.reporter import Reporter

    if hosts.stop.is_set():
        return False
    began = time.monotonic()
    devices = choose_devices()
    (all_devices,) = hosts.total(len(devices))
    identity = Identity(job.as_dict(), data, all_devices, environment.job_name)
    job = settle_precision(job, devices)
    if hosts.first and checkpoint is None:
        advise_precision(job, devices[0], hosts.asked)
    network = start_network(environment, job, devices)
    check_room(network, environment.model_dir, job.quantize is True)
    trainer = Trainer(network, job, devices, hosts)
    keeper = Keeper(
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
        return Fit(trainer, job, hosts, keeper, progress).run(loaders["train"], loaders["validation"])
    if checkpoints.wanted:
        needed = check_room(network, environment.model_dir, job.quantize is True)
        size, there = checkpoint_bytes(trainer), checkpoints.size
        check_checkpoint_room(checkpoints.folder, size, there, environment.model_dir, needed)
    explain_optimizer(job, all_devices)
    explain_schedule(job, progress.iterations)
    artifacts.write_json(environment.model_dir / artifacts.HYPERPARAMETERS, job.as_dict())
    reporter = Reporter(environment, job, loaders, _list_devices(hosts, devices))
    reporter.seconds["preparation"] = time.monotonic() - began
    fit = Fit(trainer, job, hosts, keeper, progress, reporter)
    try:
        with logging_redirect_tqdm() if sys.stderr.isatty() else contextlib.nullcontext():  # lines go above the bar
            trained = fit.run(loaders["train"], loaders["validation"])
        if trained:
            finish = Finish(environment, job, trainer, loaders, requested, reporter)
            finish.run(progress.history, progress.epoch_seconds, progress.job_seconds)
            reporter.end(progress.history, "stopped on request" if requested.is_set() else "finished")
    except BaseException:
        reporter.end(progress.history, "failed, as output/failure says")
        raise
    if not trained:
        (environment.model_dir / artifacts.HYPERPARAMETERS).unlink()
    return trained


def _list_devices(hosts: Hosts, devices: Sequence[object]) -> str:
    own = ", ".join(map(str, devices))
    return own if hosts.count == 1 else f"{own} on each of {', '.join(hosts.names)}"


def _begin(job: Hyperparameters, hosts: Hosts, checkpoints: Checkpoints, train: Loader) -> Progress:
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
    hand_over(checkpoint, environment.model_dir)
    artifacts.write_json(environment.model_dir / artifacts.HYPERPARAMETERS, job.as_dict())
    LOG.warning("stopped on request before this start trained anything: the model is that of %s", checkpoint.folder)


def _conclude(environment: Environment, job: Hyperparameters, hosts: Hosts, keeper: Keeper) -> None:
    """End a training whose devices are not waited for, with the model that is on the disk."""
    if hosts.first and keeper.conclude():
        artifacts.write_json(environment.model_dir / artifacts.HYPERPARAMETERS, job.as_dict())
    elif hosts.first:
        (environment.model_dir / artifacts.HYPERPARAMETERS).unlink(missing_ok=True)
        LOG.warning(_UNTRAINED)
    artifacts.remove_temporaries(environment.model_dir)  # at the very end: what goes on may begin another


def _open_all(
    environment: Environment, channels: list[str], job: Hyperparameters
) -> tuple[dict[str, Samples], list[Fault]]:
    """Open the channels' samples; what is wrong with one does not hide what is wrong with another."""
    samples: dict[str, Samples] = {}
    faults: list[Fault] = []
    colour_maps = ColourMaps()
    for channel in channels:
        try:
            samples[channel] = open_samples(environment, channel, job, colour_maps)
            LOG.info("#label_map %s :%s", channel, samples[channel].label_map.content)
        except ClientError as error:
            faults.append(Fault("channel", error.message, error.details))
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
