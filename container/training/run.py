"""The story of a training job: read everything that can be wrong, train, keep the weights, report."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import time

from tqdm.contrib.logging import logging_redirect_tqdm

from container import artifacts, hyperparameters
from container.data.loader import Loader
from container.data.samples import check_channels, open_samples
from container.environment import Environment, cpu_count
from container.errors import ClientError
from container.hyperparameters import Hyperparameters

LOG = logging.getLogger(__name__)


def run(environment: Environment, stop: threading.Event) -> None:
    """Do the job: read everything that can be wrong, train, keep the weights, report. `stop` ends it early."""
    job = hyperparameters.load(environment.hyperparameters)
    _check_hosts(environment)
    check_channels(environment)
    loaders = {
        channel: Loader(open_samples(environment, channel, job), job, stop)
        for channel in ("train", "validation", "test")
        if channel in environment.channels
    }
    for channel in loaders:
        LOG.info("#label_map %s :%s", channel, loaders[channel].label_map.content)
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
    check_room(network, environment.model_dir, job.quantize)
    trainer = Trainer(network, job, devices)
    artifacts.write_json(environment.model_dir / artifacts.HYPERPARAMETERS, job.as_dict())
    fit = Fit(trainer, job, environment, stop)
    started = time.monotonic()
    with logging_redirect_tqdm() if sys.stderr.isatty() else contextlib.nullcontext():  # lines go above the bar
        fit.run(loaders["train"], loaders["validation"])
    epoch_seconds = (time.monotonic() - started) / max(1, loaders["train"].training_passes)
    Finish(environment, job, trainer, loaders, stop).run(fit.history, epoch_seconds)


def _check_hosts(environment: Environment) -> None:
    if len(environment.hosts) > 1:
        raise ClientError(
            f"this algorithm trains on one instance, with all of its GPUs; the job has {len(environment.hosts)}: "
            "set instance_count=1"
        )
