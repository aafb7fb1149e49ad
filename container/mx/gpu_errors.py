"""CUDA errors, with their cause and fix."""

from __future__ import annotations

import re

from container.errors import ClientError, JobError, PlatformError

_KINDS = (
    (
        r"no kernel image|device kernel image is invalid|invalid device function|unsupported toolchain"
        r"|PTX JIT|_ARCH_MISMATCH|no binary for gpu",
        ClientError,
        "MXNet 1.9.1 cannot run on this kind of GPU. It supports compute capability 5.0 to 8.9, which excludes "
        "P2 (3.7), and Hopper or later (p5). Choose a p3, p4d, g4dn, g5, or g6 instance",
    ),
    (
        r"out of memory|_ALLOC_FAILED",
        ClientError,
        "the GPU's memory ran out: lower mini_batch_size or crop_size, or take an instance with larger GPUs",
    ),
    (
        r"driver version is insufficient|unsupported display driver|forward compatibility|driver shutting down"
        r"|initialization error|not yet initialized|no CUDA-capable device",
        PlatformError,
        "NVIDIA's driver on this host does not serve CUDA 11.2: take a SageMaker GPU instance, or update the driver "
        "(450.80 or later) and start the container with --gpus all",
    ),
    (
        r"busy or unavailable|exclusive",
        PlatformError,
        "the GPU is held by another process: end it, or start the job again on another instance",
    ),
    (
        r"unknown error|ECC|NVLink|hardware stack|GPU is lost|fell off the bus|launch timed out|system failure",
        PlatformError,
        "the GPU or its driver is faulty: start the job again, which gives it another instance",
    ),
)


def explain_gpu_error(text: str) -> JobError | None:
    """Return what `text`, one line of MXNet's, says of the GPU; None when it is no CUDA error of a known kind."""
    if not re.search(r"cuda|cudnn|cublas|nvml|nccl", text, re.IGNORECASE):
        return None
    for pattern, fault, remedy in _KINDS:
        if re.search(pattern, text, re.IGNORECASE):
            return fault(f"{remedy}. {text}")
    return None
