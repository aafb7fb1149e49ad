"""Measurement of bfloat16 and float32 training before a CPU job.

`python -m container.mx.precision BYTES`, with the job on stdin, measures in a separate process, because AMP changes the
MXNet operators of a process. The weights, statistics, and random numbers of the job do not change.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import resource
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import mxnet as mx
import numpy as np

from container.data.batches import Batch
from container.environment import memory_available
from container.hyperparameters import Hyperparameters, load
from container.mx.devices import resolve_precision
from container.mx.networks.architectures import create_network
from container.mx.networks.segmentation import initialize_weights
from container.mx.optimization.freeze import freeze_layers
from container.mx.trainer import Trainer

LOG = logging.getLogger(__name__)

_WARM, _ROUNDS = 2, 3  # iterations
_SECONDS = 120  # timeout of the measurement
_ENOUGH_SECONDS = 30  # after which no further round starts
_LEAST_ITERATIONS = 100  # of a job; in shorter jobs, nothing is measured
_LEAST_PIXELS = 200_000_000  # of all iterations of a job: minutes of training, while the measurement takes 30 s or more
_LEAST_GAIN = 1.05  # below it, noise can be the cause
_SLICE_SECONDS = 0.1


def advise_precision(job: Hyperparameters, device: mx.Context, stop: threading.Event) -> None:
    """Log the speed of a job in mixed precision on a CPU and in float32; warn if float32 is faster.

    The job keeps its precision: a restarted job must not change it, and which one is faster can vary with the load.
    """
    if job.precision_dtype == "float32" or device.device_type != "cpu" or not _is_long(job):
        return
    seconds = _measure_apart(job, stop)
    if seconds is None:
        LOG.info("The speeds of bfloat16 and float32 were not compared, because of a lack of time or memory.")
        return
    half, single = seconds
    measured = f"an iteration takes {half:.3g} s in bfloat16 and {single:.3g} s in float32 (medians of {_ROUNDS})"
    if half > _LEAST_GAIN * single:
        LOG.warning(
            "precision_dtype=float16 means bfloat16 on a CPU, and makes this job slower on this processor: %s. Set "
            "precision_dtype=float32.",
            measured,
        )
    else:
        LOG.info("precision_dtype=float16 means bfloat16 on a CPU: %s", measured)


def _is_long(job: Hyperparameters) -> bool:
    """Tell whether a job takes so long that the measurement adds little."""
    iterations = job.num_training_samples // job.mini_batch_size * job.epochs
    return iterations >= _LEAST_ITERATIONS and iterations * job.mini_batch_size * job.crop**2 >= _LEAST_PIXELS


def _measure_apart(job: Hyperparameters, stop: threading.Event) -> tuple[float, float] | None:
    """Measure in a separate process; None if it fails, takes too long, or `stop` is set."""
    command = [sys.executable, "-m", "container.mx.precision", str(memory_available())]
    question: str | None = json.dumps(job.as_dict())  # on stdin: names of many classes are too long for an argument
    folder = Path(__file__).parents[2]
    alone = {name: value for name, value in os.environ.items() if not name.startswith("DMLC_")}  # no host of a cluster
    pipe, null = subprocess.PIPE, subprocess.DEVNULL
    try:
        child = subprocess.Popen(command, cwd=folder, env=alone, stdin=pipe, stdout=pipe, stderr=null, text=True)
    except OSError:  # no memory or process is left for it
        return None
    end = time.monotonic() + _SECONDS
    while not stop.is_set() and time.monotonic() < end:
        with contextlib.suppress(subprocess.TimeoutExpired):
            sent, question = question, None
            out, _ = child.communicate(sent, timeout=_SLICE_SECONDS)
            if child.returncode:
                return None
            half, single = json.loads(out.splitlines()[-1])
            return half, single
    child.kill()
    child.communicate()
    return None


def measure(job: Hyperparameters) -> tuple[float, float]:
    """Return the median seconds of an iteration in bfloat16 and in float32, measured alternately."""
    begun = time.monotonic()
    rng = np.random.default_rng(0)
    shape = (job.mini_batch_size, job.crop, job.crop)
    labels = rng.integers(0, job.num_classes, shape).astype(np.uint8)
    batch = Batch(rng.integers(0, 256, (*shape, 3), np.uint8), labels)
    single, half = prepare_trainers(job)
    seconds: dict[Trainer, list[float]] = {half: [], single: []}
    for trainer in seconds:
        for _ in range(_WARM):
            _step(trainer, batch)
    for number in range(_ROUNDS):
        if number and time.monotonic() - begun > _ENOUGH_SECONDS:
            break
        for trainer, own in seconds.items():
            own.append(_step(trainer, batch))
    return statistics.median(seconds[half]), statistics.median(seconds[single])


def prepare_trainers(job: Hyperparameters) -> list[Trainer]:
    """Return trainers of the job in float32 and in bfloat16, with random weights. Call this once per process.

    The float32 trainer builds its graph first, in an iteration with one image, because AMP adds casts to later graphs.
    """
    trainers = []
    for precision in ("float32", "float16"):
        own = dataclasses.replace(job, precision_dtype=precision, accumulate=1)
        devices = [mx.cpu()]
        resolve_precision(own, devices)
        network = create_network(own.algorithm, own.num_classes, own.backbone)
        initialize_weights(network)
        freeze_layers(network, own, loaded=set(network._collect_params_with_prefix()))
        network.hybridize()
        trainer = Trainer(network, own, devices)
        trainer._gradients_checked = True  # the job checks them
        _step(trainer, Batch(np.zeros((1, 32, 32, 3), np.uint8), np.zeros((1, 32, 32), np.uint8)))
        trainers.append(trainer)
    return trainers


def _step(trainer: Trainer, batch: Batch) -> float:
    """Return the seconds of an iteration."""
    begun = time.perf_counter()
    trainer.step(batch, 1e-6)
    mx.nd.waitall()
    return time.perf_counter() - begun


def main() -> None:
    """Print the seconds in bfloat16 and in float32 for the job on stdin. The argument is the number of free bytes.

    Without this limit, the process could use all memory. Some platforms then kill all processes of the container.
    """
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    limit = int(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_DATA, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))
    with contextlib.suppress(OSError):  # if memory runs out, the kernel kills this process instead of its parent
        Path("/proc/self/oom_score_adj").write_text("1000")
    print(json.dumps(measure(load(json.load(sys.stdin)))))


if __name__ == "__main__":
    main()
