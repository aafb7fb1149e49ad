"""CUDA errors, with their cause and fix."""

from __future__ import annotations

import re

from container.errors import ClientError, JobError, PlatformError
from container.mx.gpus import INSTANCES, SUPPORTED

_KINDS = (
    (
        r"no kernel image|device kernel image is invalid|invalid device function|unsupported toolchain"
        r"|PTX JIT|_ARCH_MISMATCH|no binary for gpu",
        ClientError,
        f"MXNet 1.9.1 cannot run on this kind of GPU. It supports compute capability {SUPPORTED}, which excludes "
        f"P2 (3.7), and Hopper or later (p5). Choose a {INSTANCES} instance",
    ),
    (
        r"out of memory|_ALLOC_FAILED",
        ClientError,
        "The GPU memory ran out. Decrease mini_batch_size (if it is larger than 1) or crop_size, or choose an instance "
        "with larger GPUs",
    ),
    (
        r"driver version is insufficient|unsupported display driver|forward compatibility|driver shutting down"
        r"|initialization error|not yet initialized|no CUDA-capable device",
        PlatformError,
        "The NVIDIA driver on this host does not support CUDA 11.2. Use a SageMaker GPU instance, or update the driver "
        "(450.80 or later) and start the container with --gpus all",
    ),
    (
        r"busy or unavailable|exclusive",
        PlatformError,
        "The GPU is in use by another process. Stop that process, or start the job again on another instance",
    ),
    (
        r"unknown error|ECC|NVLink|hardware stack|GPU is lost|fell off the bus|launch timed out|system failure",
        PlatformError,
        "The GPU or its driver is defective. Start the job again, on another instance",
    ),
)


def explain_gpu_error(text: str) -> JobError | None:
    """Return the error for a line of MXNet output, or None if it is not a known CUDA error."""
    if not re.search(r"cuda|cudnn|cublas|nvml|nccl", text, re.IGNORECASE):
        return None
    for pattern, fault, remedy in _KINDS:
        if re.search(pattern, text, re.IGNORECASE):
            return fault(f"{remedy}. {text}")
    return None
