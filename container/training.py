"""A training job: one guard around one story."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import signal
import sys
import threading
import time
import traceback
from pathlib import Path

from tqdm.contrib.logging import logging_redirect_tqdm

from container import artifacts, hyperparameters
from container.data.loader import Loader
from container.data.samples import check_channels, open_samples
from container.environment import Environment, base_dir, cpu_count
from container.errors import AlgorithmError, ClientError, JobError, PlatformError
from container.hyperparameters import Hyperparameters

LOG = logging.getLogger(__name__)

_REASON_LENGTH = 1024  # characters of the failure file that become the job's FailureReason


def main() -> int:
    """Run the job below SAGEMAKER_BASE_DIR and return the exit code: 0 completed, 1 failed.

    A failure is explained in `output/failure`, message first; its traceback goes to the log.
    """
    _log_to_stdout()
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda signum, frame: stop.set())
    root = base_dir()
    try:
        run(Environment.read(root), stop)
    except BaseException as error:
        reason = _explain(error)
        LOG.error("%s\n%s", reason, "".join(traceback.format_exception(error)).rstrip())
        _write_failure(root / "output" / "failure", reason)
        return 1
    return 0


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
    from container.finish import Finish
    from container.mx.devices import choose_devices, settle_precision
    from container.mx.fit import Fit
    from container.mx.start import start_network
    from container.mx.trainer import Trainer

    devices = choose_devices()
    job = settle_precision(job, devices)
    network = start_network(environment, job, devices)
    trainer = Trainer(network, job, devices)
    artifacts.write_json(environment.model_dir / artifacts.HYPERPARAMETERS, job.as_dict())
    fit = Fit(trainer, job, environment, stop)
    with logging_redirect_tqdm() if sys.stderr.isatty() else contextlib.nullcontext():  # lines go above the bar
        fit.run(loaders["train"], loaders["validation"])
    Finish(environment, job, trainer, loaders, stop).run(fit.history)


def _check_hosts(environment: Environment) -> None:
    if len(environment.hosts) > 1:
        raise ClientError(
            f"this algorithm trains on one instance, with all of its GPUs; the job has {len(environment.hosts)}: "
            "set instance_count=1"
        )


def _explain(error: BaseException) -> str:
    """Return the failure's reason, by whose fault it is, with what to do first."""
    if not isinstance(error, JobError):
        error = _classify(error)
    return f"{type(error).__name__}: {error}"


def _classify(error: BaseException) -> JobError:
    text = f"{type(error).__name__}: {error}".strip()
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return PlatformError(f"the disk is full: give the job a larger volume (volume_size). {text}")
    if isinstance(error, MemoryError) or "out of memory" in text.lower():
        return ClientError(f"memory ran out: lower mini_batch_size or crop_size, or take a larger instance. {text}")
    return AlgorithmError(text)


def _write_failure(path: Path, reason: str) -> None:
    """Write the failure file; a disk that refuses even that must not hide the reason, which is in the log."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(reason[:_REASON_LENGTH])
    except OSError as error:
        LOG.error("the failure file could not be written: %s", error)


def _log_to_stdout() -> None:
    """Log to stdout line by line, each with the built-in's prefix: `[12/16/2020 18:55:13 INFO 140663167997760] `."""
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    handler = logging.StreamHandler(sys.stdout)
    formatter = logging.Formatter("[%(asctime)s %(levelname)s %(thread)d] %(message)s", "%m/%d/%Y %H:%M:%S")
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
