"""CUDA's errors, as MXNet words them: each kind with its own remedy, and nothing else taken for one."""

from __future__ import annotations

import pytest

from container.errors import ClientError, JobError, PlatformError
from container.mx.gpu_errors import explain_gpu_error

CHECK = "MXNetError: CUDA: Check failed: e == cudaSuccess || e == cudaErrorCudartUnloading: "  # of mxnet 1.9.1


# The texts are those of cudaGetErrorString, https://docs.nvidia.com/cuda/cuda-runtime-api/group__CUDART__TYPES.html
@pytest.mark.parametrize(
    ("text", "kind", "said"),
    [
        ("no kernel image is available for execution on the device", ClientError, "excludes P2 (3.7), and Hopper"),
        ("device kernel image is invalid", ClientError, "compute capability 5.0 to 8.9"),
        ("the provided PTX was compiled with an unsupported toolchain.", ClientError, "compute capability"),
        ("out of memory", ClientError, "Decrease mini_batch_size (if it is larger"),
        ("CUDA driver version is insufficient for CUDA runtime version", PlatformError, "update the driver"),
        ("initialization error", PlatformError, "driver"),
        ("unknown error", PlatformError, "The GPU or its driver is defective"),
        ("all CUDA-capable devices are busy or unavailable", PlatformError, "in use by another process"),
        ("uncorrectable ECC error encountered", PlatformError, "The GPU or its driver is defective"),
        (
            "uncorrectable NVLink error detected during the execution",
            PlatformError,
            "The GPU or its driver is defective",
        ),
    ],
)
def test_each_kind_has_its_remedy(text: str, kind: type[JobError], said: str) -> None:
    fault = explain_gpu_error(CHECK + text)
    assert type(fault) is kind
    assert said in str(fault) and str(fault).endswith(text)
    assert ("Hopper" in str(fault)) == (kind is ClientError and "memory" not in text)


@pytest.mark.parametrize(
    "text",
    [
        CHECK + "an illegal memory access was encountered",  # a defect of a kernel or of ours
        CHECK + "device-side assert triggered",
        "MXNetError: Check failed: fi->Read(&header): Invalid NDArray file format",
        "MemoryError: out of memory",
        "OSError: unknown error",
        "",
    ],
)
def test_nothing_else_is_laid_on_the_gpu(text: str) -> None:
    assert explain_gpu_error(text) is None
