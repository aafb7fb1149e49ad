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
from container.data.audit import Audit
from container.data.channels import check_channels, used_channels
from container.data.colours import ColourMaps
from container.data.faults import Fault
from container.data.label_maps import check_label_maps
from container.data.loader import Loader
from container.data.samples import FileSamples, Samples, open_samples
from container.environment import Environment, cpu_count
from container.errors import ClientError
from container.hyperparameters import Hyperparameters

LOG = logging.getLogger(__name__)


def run(environment: Environment, stop: threading.Event) -> None:
    """Do the job: read everything that can be wrong, train, keep the weights, report. `stop` ends it early."""
    train_channel = environment.channels.get("train")
    streamed = train_channel is not None and train_channel.input_mode == "Pipe"
    job = hyperparameters.load(environment.hyperparameters, streamed)
    _check_hosts(environment)
    check_channels(environment)
    used = used_channels(environment)
    check_label_maps(environment.channels, used)
    samples, unopened = _open_all(environment, used, job)
    job = _settle(job, samples.get("train"))
    audit = Audit(job, samples, environment.output_data_dir, unopened)
    audit.run(_audit_mode(environment, job), stop)
    loaders = {channel: Loader(samples[channel], job, stop, audit) for channel in used}
    os.environ.setdefault("OMP_NUM_THREADS", str(cpu_count()))  # MXNet reads it once, and would take half
    train(environment, job, loaders, stop)


def train(environment: Environment, job: Hyperparameters, loaders: dict[str, Loader], stop: threading.Event) -> None:
    """Train on the input that `run` has checked; only from here on the framework is there."""
    from container.mx.devices import choose_devices, settle_precision
    from container.mx.room import check_room
    from container.mx.start import start_network
    from container.mx.trainer import Trainer
    from container.training.finish import Finish
    from container.training.fit import Fit

    devices = choose_devices()
    job = settle_precision(job, devices)
    network = start_network(environment, job, devices)
    check_room(network, environment.model_dir, job.quantize is True)
    trainer = Trainer(network, job, devices)
    artifacts.write_json(environment.model_dir / artifacts.HYPERPARAMETERS, job.as_dict())
    fit = Fit(trainer, job, environment, stop)
    started = time.monotonic()
    with logging_redirect_tqdm() if sys.stderr.isatty() else contextlib.nullcontext():  # lines go above the bar
        fit.run(loaders["train"], loaders["validation"])
    epoch_seconds = (time.monotonic() - started) / max(1, loaders["train"].training_passes)
    Finish(environment, job, trainer, loaders, stop).run(fit.history, epoch_seconds)


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
    streamed = any(channel.input_mode.lower() == "fastfile" for channel in environment.channels.values())
    return job.audit or ("fast" if streamed else "full")


def _settle(job: Hyperparameters, train: Samples | None) -> Hyperparameters:
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
