"""Selection of the training devices and precision."""

from __future__ import annotations

import dataclasses
import logging

import mxnet as mx
from mxnet.contrib import amp

from container.environment import processor_has
from container.errors import PlatformError, last_line
from container.hyperparameters import Hyperparameters
from container.mx.gpu_errors import explain_gpu_error

LOG = logging.getLogger(__name__)

_UNUSABLE = "a GPU of this instance does not compute: start the job again, which gives it another instance"


def choose_devices() -> list[mx.Context]:
    """Return all GPUs, or the CPU with a warning when there is none; log the built-in's line either way.

    Raises ClientError when the GPU is of a kind that MXNet 1.9.1 holds no code for, and what `explain_gpu_fault` says
    of every other failure to compute on it.
    """
    try:
        devices = [mx.gpu(index) for index in range(mx.context.num_gpus())]
        for device in devices:
            (mx.nd.ones((1,), ctx=device) + 1).wait_to_read()
    except mx.MXNetError as error:
        line = last_line(error)
        raise explain_gpu_error(line) or PlatformError(f"{_UNUSABLE}. {line}") from error
    LOG.info("Number of GPUs being used: %d", len(devices))
    if not devices:
        LOG.warning("there is no GPU: training runs on the CPU, which is much slower")
        return [mx.cpu()]
    return devices


def resolve_precision(job: Hyperparameters, devices: list[mx.Context]) -> Hyperparameters:
    """Switch MXNet to mixed precision when the job asks for float16 and the devices compute in it.

    That rewrites MXNet's operators for the whole process, so it comes before the network. On CPUs it means bfloat16,
    for which MXNet needs AVX-512; without it the job returned is a float32 one.
    """
    if job.precision_dtype == "float32":
        return job
    on_gpu = devices[0].device_type == "gpu"
    if not on_gpu and not processor_has("avx512bw"):
        LOG.warning("precision_dtype=float16 needs a GPU or a CPU with AVX-512: training in float32")
        return dataclasses.replace(job, precision_dtype="float32")
    amp.init("float16" if on_gpu else "bfloat16")
    return job
