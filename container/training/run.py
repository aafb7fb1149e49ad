"""The story of a training job: read everything that can be wrong, train, keep the weights, report."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import sys
import threading
import time

from tqdm.contrib.logging import logging_redirect_tqdm

from container import artifacts, hyperparameters
from container.data.audit.audit import Audit, recorded
from container.data.audit.faults import Fault
from container.data.channels import check_channels, used_channels
from container.data.colours import ColourMaps
from container.data.label_maps import check_label_maps
from container.data.loader import Loader
from container.data.samples import FileSamples, Samples, open_samples
from container.environment import Environment, cpu_count
from container.errors import ClientError
from container.hyperparameters import Hyperparameters
from container.training.checkpoints import Checkpoint, Checkpoints
from container.training.progress import Identity, Progress
from container.training.resume import check_identity, find_checkpoint, hand_over, settle_seed

LOG = logging.getLogger(__name__)


def run(environment: Environment, stop: threading.Event) -> None:
    """Do the job: read everything that can be wrong, train, keep the weights, report. `stop` ends it early."""
    train_channel = environment.channels.get("train")
    streamed = train_channel is not None and train_channel.input_mode == "Pipe"
    job = hyperparameters.load(environment.hyperparameters, streamed)
    _check_hosts(environment)
    used = used_channels(environment)
    with recorded(environment.output_data_dir) as notes:
        check_channels(environment)
        check_label_maps(environment.channels, used)
        samples, unopened = _open_all(environment, used, job)
    checkpoints = Checkpoints(environment.checkpoint_dir)
    checkpoint = find_checkpoint(checkpoints, job, environment.job_name)
    job = settle_seed(_settle_count(job, samples.get("train")), checkpoint)
    audit = Audit(job, samples, environment.output_data_dir, unopened, notes)
    audit.run(_audit_mode(environment, job), stop)
    loaders = {channel: Loader(samples[channel], job, stop, audit) for channel in used}
    if checkpoint:
        check_identity(checkpoint, job, {channel: loader.identity() for channel, loader in loaders.items()})
    os.environ.setdefault("OMP_NUM_THREADS", str(cpu_count()))  # MXNet reads it once, and would take half
    artifacts.remove_temporaries(environment.model_dir)
    if stop.is_set() or not train(environment, job, loaders, checkpoints, checkpoint, stop):
        _end_untrained(environment, job, checkpoint)


def train(
    environment: Environment,
    job: Hyperparameters,
    loaders: dict[str, Loader],
    checkpoints: Checkpoints,
    checkpoint: Checkpoint | None,
    stop: threading.Event,
) -> bool:
    """Train on the input that `run` has checked; only from here on the framework is there.

    Returns False when it was stopped before anything was trained; then it has left no model.
    """
    from container.mx.devices import choose_devices, settle_precision
    from container.mx.losses import explain_loss
    from container.mx.optimizer import explain_optimizer
    from container.mx.room import check_room
    from container.mx.start import start_network
    from container.mx.trainer import Trainer
    from container.training.finish import Finish
    from container.training.fit import Fit
    from container.training.keeper import Keeper
    from container.training.report.reporter import Reporter

    if stop.is_set():
        return False
    began = time.monotonic()
    devices = choose_devices()
    data = {channel: loader.identity() for channel, loader in loaders.items()}
    identity = Identity(job.as_dict(), data, len(devices), environment.job_name)
    job = settle_precision(job, devices)
    network = start_network(environment, job, devices)
    check_room(network, environment.model_dir, job.quantize is True)
    trainer = Trainer(network, job, devices)
    explain_optimizer(job, len(devices))
    explain_loss(job)
    keeper = Keeper(trainer, loaders["train"], environment, checkpoints, identity, job.checkpoint_minutes)
    progress = keeper.restore(checkpoint) if checkpoint else _begin(job, checkpoints)
    artifacts.write_json(environment.model_dir / artifacts.HYPERPARAMETERS, job.as_dict())
    reporter = Reporter(environment, job, loaders, ", ".join(map(str, devices)))
    reporter.seconds["preparation"] = time.monotonic() - began
    fit = Fit(trainer, job, environment.current_host, keeper, progress, stop, reporter)
    started = time.monotonic()
    try:
        with logging_redirect_tqdm() if sys.stderr.isatty() else contextlib.nullcontext():  # lines go above the bar
            trained = fit.run(loaders["train"], loaders["validation"])
        if trained:
            epoch_seconds = (time.monotonic() - started) / max(1, loaders["train"].training_passes)
            Finish(environment, job, trainer, loaders, stop, reporter).run(progress.history, epoch_seconds)
            reporter.end(progress.history, "stopped on request" if stop.is_set() else "finished")
    except BaseException:
        reporter.end(progress.history, "failed, as output/failure says")
        raise
    if not trained:
        (environment.model_dir / artifacts.HYPERPARAMETERS).unlink()
    return trained


def _begin(job: Hyperparameters, checkpoints: Checkpoints) -> Progress:
    """Begin at the beginning; with `_resume=restart` what earlier jobs have left would pass for this one's."""
    if job.resume == "restart":
        checkpoints.clear()
    if checkpoints.wanted:
        LOG.info("there is no whole checkpoint in %s: training begins at its beginning", checkpoints.folder)
    return Progress(iterations=max(1, job.num_training_samples // job.mini_batch_size))


def _end_untrained(environment: Environment, job: Hyperparameters, checkpoint: Checkpoint | None) -> None:
    """Say that this start has trained nothing; a checkpoint's weights are the model all the same."""
    if checkpoint is None:
        LOG.warning("stopped on request before anything was trained: there is no model")
        return
    hand_over(checkpoint, environment.model_dir)
    artifacts.write_json(environment.model_dir / artifacts.HYPERPARAMETERS, job.as_dict())
    LOG.warning("stopped on request before this start trained anything: the model is that of %s", checkpoint.folder)


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


def _settle_count(job: Hyperparameters, train: Samples | None) -> Hyperparameters:
    """Count the training samples where the job does not say how many they are."""
    if job.num_training_samples or not isinstance(train, FileSamples):
        return job
    LOG.info("num_training_samples is not given: %d training samples were counted", len(train))
    return dataclasses.replace(job, num_training_samples=len(train))


def _check_hosts(environment: Environment) -> None:
    if len(environment.hosts) > 1:
        raise ClientError(
            f"this algorithm trains on one instance, with all of its GPUs; the job has {len(environment.hosts)}: "
            "set instance_count=1"
        )
