"""The steps of a training job, in order."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from tqdm.contrib.logging import logging_redirect_tqdm

from container.artifact import model_directory
from container.cluster.agreement import identify_data
from container.cluster.hosts import Hosts, join_hosts
from container.data.loader import Loader
from container.environment import Environment, cpu_count
from container.errors import JobCancelledError, JobError
from container.hyperparameters import Hyperparameters
from container.training.checkpoints.progress import JobIdentity, Progress
from container.training.checkpoints.resume import broadcast_checkpoint, check_identity, restore_model
from container.training.inputs import JobInputs, create_loaders, open_inputs
from container.training.metric_log import load_hyperparameters, log_end
from container.training.schedule import explain_schedule
from container.training.shutdown import Shutdown

if TYPE_CHECKING:
    from container.mx.trainer import Trainer
    from container.training.checkpoints.manager import CheckpointManager
    from container.training.report.reporter import Reporter

LOG = logging.getLogger(__name__)

_UNTRAINED = "stopped on request before anything was trained: there is no model"


def run(
    environment: Environment,
    stop: threading.Event,
    fail: Callable[[JobError], None] = lambda error: None,
    shutdown: Shutdown | None = None,
) -> None:
    """Run the job: check all inputs, train, and write the model and the report. `stop` ends it early.

    If another host fails, this process calls `fail` with the reason and exits. `shutdown` gets the function that
    completes the model if the process must exit before training does.
    """
    train_channel = environment.channels.get("train")
    streamed = train_channel is not None and train_channel.input_mode == "Pipe"
    job = load_hyperparameters(environment, streamed)
    os.environ.setdefault("OMP_NUM_THREADS", str(cpu_count()))  # MXNet reads it once; its default is half of the CPUs
    shutdown = shutdown or Shutdown(stop)
    try:
        with join_hosts(environment, job, stop, fail) as hosts:
            inputs = open_inputs(environment, job, hosts)
            shutdown.complete_model = functools.partial(_restore_untrained, inputs)
            loaders = create_loaders(inputs)
            if not train(inputs, loaders, shutdown):
                _restore_untrained(inputs)
    except JobCancelledError:
        LOG.warning("stopped on request before all hosts had joined: there is no model")


def train(inputs: JobInputs, loaders: dict[str, Loader], shutdown: Shutdown) -> bool:
    """Train on the checked inputs; returns False, without a model, if the job was stopped before it trained."""
    environment, hosts = inputs.environment, inputs.hosts
    data = identify_data(hosts, loaders)
    if inputs.checkpoint:
        check_identity(inputs.checkpoint, inputs.job, data)
    model_directory.remove_temporaries(environment.model_dir)
    if hosts.agree_to_stop():
        return False
    from container.mx.devices import choose_devices, resolve_precision
    from container.training.checkpoints.manager import CheckpointManager
    from container.training.fit import TrainingLoop
    from container.training.scoring.final_steps import FinalSteps

    began = time.monotonic()
    devices = choose_devices()
    (device_count,) = hosts.sum_integers(len(devices))
    identity = JobIdentity(inputs.job.as_dict(), data, device_count, environment.job_name)
    job = resolve_precision(inputs.job, devices)
    trainer = _create_trainer(inputs, job, devices)
    manager = CheckpointManager(inputs, trainer, loaders["train"], identity, shutdown.writing)
    with broadcast_checkpoint(hosts, inputs.checkpoint) as checkpoint:
        progress = manager.restore(checkpoint) if checkpoint else _start_progress(inputs, loaders["train"])
    shutdown.complete_model = functools.partial(_complete_model, environment, job, hosts, manager)
    if not hosts.first:  # the other hosts only train
        return TrainingLoop(job, trainer, manager, progress).run(loaders["train"], loaders["validation"])
    _prepare_outputs(inputs, job, trainer, device_count)
    with _open_reporter(inputs, job, loaders, trainer, progress) as reporter:
        reporter.seconds["preparation"] = time.monotonic() - began
        training_started = time.time()
        is_trained = TrainingLoop(job, trainer, manager, progress, reporter).run(
            loaders["train"], loaders["validation"]
        )
        if is_trained:
            steps = FinalSteps(environment, job, trainer, loaders, hosts.stop_requested, reporter)
            steps.run(progress.history, progress.epoch_seconds, progress.job_seconds)
            reporter.end(progress.history, "stopped on request" if hosts.stop_requested.is_set() else "finished")
            log_end(environment, len(progress.history), training_started)
    if not is_trained:
        (environment.model_dir / model_directory.HYPERPARAMETERS).unlink()
    return is_trained


def _create_trainer(inputs: JobInputs, job: Hyperparameters, devices: list[Any]) -> Trainer:
    """Create the model with its initial weights, and the trainer on all devices and hosts."""
    from container.mx.disk_estimate import check_disk_space
    from container.mx.precision import advise_precision
    from container.mx.trainer import Trainer
    from container.mx.weights.initial_network import create_initial_network

    if inputs.hosts.first and inputs.checkpoint is None:
        advise_precision(job, devices[0], inputs.hosts.stop_requested)
    network = create_initial_network(inputs.environment, job, devices)
    check_disk_space(network, inputs.environment.model_dir, job.quantize is True)
    return Trainer(network, job, devices, inputs.hosts)


def _prepare_outputs(inputs: JobInputs, job: Hyperparameters, trainer: Trainer, device_count: int) -> None:
    """Check that checkpoints and model fit on the disk, log the optimizer, and write the hyperparameters."""
    from container.mx.checkpoint import checkpoint_bytes
    from container.mx.disk_estimate import check_checkpoint_room, check_disk_space
    from container.mx.optimization.optimizer import explain_optimizer

    model_dir, checkpoints = inputs.environment.model_dir, inputs.checkpoints
    if checkpoints.wanted:
        needed = check_disk_space(trainer.network, model_dir, job.quantize is True)
        check_checkpoint_room(checkpoints.folder, checkpoint_bytes(trainer), checkpoints.size, model_dir, needed)
    explain_optimizer(job, device_count)
    model_directory.write_json(model_dir / model_directory.HYPERPARAMETERS, job.as_dict())


@contextlib.contextmanager
def _open_reporter(
    inputs: JobInputs, job: Hyperparameters, loaders: dict[str, Loader], trainer: Trainer, progress: Progress
) -> Iterator[Reporter]:
    """Write the report during the block; if the block fails, the report contains this state."""
    from container.training.report.reporter import Reporter

    explain_schedule(job, progress.iterations)
    reporter = Reporter(inputs.environment, job, loaders, inputs.hosts.describe_devices(trainer.devices))
    try:
        with logging_redirect_tqdm() if sys.stderr.isatty() else contextlib.nullcontext():  # log above the progress bar
            yield reporter
    except BaseException:
        reporter.end(progress.history, "failed; output/failure contains the reason")
        raise


def _start_progress(inputs: JobInputs, train: Loader) -> Progress:
    """Return the progress of a new training; with `_resume=restart`, delete the checkpoints of earlier jobs."""
    job, checkpoints = inputs.job, inputs.checkpoints
    if job.resume == "restart" and inputs.hosts.first:
        checkpoints.clear()
    if checkpoints.wanted:
        LOG.info("%s contains no valid checkpoint: the job trains from the beginning", checkpoints.folder)
    planned = train.shard.passes if train.enterable else 0  # the longest shard decides
    return Progress(iterations=planned or max(1, job.num_training_samples // job.mini_batch_size))


def _restore_untrained(inputs: JobInputs) -> None:
    """Write the model of a job that was stopped before it trained: the weights of the checkpoint, if there is one."""
    environment, checkpoint = inputs.environment, inputs.checkpoint
    if checkpoint:
        restore_model(checkpoint, environment.model_dir)
        model_directory.write_json(environment.model_dir / model_directory.HYPERPARAMETERS, inputs.job.as_dict())
        LOG.warning("stopped on request before this start trained anything: the model is that of %s", checkpoint.folder)
    elif inputs.hosts.first:
        LOG.warning(_UNTRAINED)


def _complete_model(environment: Environment, job: Hyperparameters, hosts: Hosts, manager: CheckpointManager) -> None:
    """Complete the model from the files on the disk, without the devices, because this process must exit."""
    path = environment.model_dir / model_directory.HYPERPARAMETERS
    if manager.complete_model():
        model_directory.write_json(path, job.as_dict())
    elif hosts.first:
        path.unlink(missing_ok=True)
        LOG.warning(_UNTRAINED)
    model_directory.remove_temporaries(environment.model_dir)  # last, because training can start to write another file
