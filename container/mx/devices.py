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

_UNUSABLE = "a GPU of this instance does not work. Start the job again, on another instance"


def choose_devices() -> list[mx.Context]:
    """Return all GPUs, or the CPU with a warning if there is no GPU; log the line of the built-in algorithm.

    Raises ClientError if MXNet 1.9.1 does not support the GPU, and the error of `explain_gpu_error` for other failures.
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
        LOG.warning("No GPU found. Training runs on the CPU, which is much slower.")
        return [mx.cpu()]
    return devices


def resolve_precision(job: Hyperparameters, devices: list[mx.Context]) -> Hyperparameters:
    """Switch MXNet to mixed precision if the job sets float16 and the devices support it.

    This changes the MXNet operators of the process, so it must precede the creation of the model. On CPUs, float16
    means bfloat16, for which MXNet needs AVX-512. Without AVX-512, the returned job uses float32.
    """
    if job.precision_dtype == "float32":
        return job
    on_gpu = devices[0].device_type == "gpu"
    if not on_gpu and not processor_has("avx512bw"):
        LOG.warning("precision_dtype=float16 needs a GPU or a CPU with AVX-512. This job trains in float32.")
        return dataclasses.replace(job, precision_dtype="float32")
    amp.init("float16" if on_gpu else "bfloat16")
    return job
