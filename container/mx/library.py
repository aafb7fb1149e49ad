"""Selection of the MXNet library, before MXNet is imported."""

from __future__ import annotations

import ctypes
import os

CPU_LIBRARY_VARIABLE = "MXNET_CPU_LIBRARY"


def select_library() -> None:
    """Select the CPU build of MXNet on a host without the NVIDIA driver, where the CUDA build cannot be loaded.

    The CUDA container image sets MXNET_CPU_LIBRARY to that build. Without the variable, nothing is changed. The
    selection applies to this process and its children.
    """
    library = os.environ.get(CPU_LIBRARY_VARIABLE)
    if not library:
        return
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        os.environ.setdefault("MXNET_LIBRARY_PATH", library)
