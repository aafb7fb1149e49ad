"""Selection of the MXNet library, before MXNet is imported."""

from __future__ import annotations

import ctypes
import os

CPU_LIBRARY_VARIABLE = "MXNET_CPU_LIBRARY"


def select_library() -> None:
    """Choose MXNet's CPU build on a host without NVIDIA's driver, where the CUDA build cannot be loaded.

    The CUDA image names that build by MXNET_CPU_LIBRARY; elsewhere there is nothing to choose. This process and its
    children follow.
    """
    library = os.environ.get(CPU_LIBRARY_VARIABLE)
    if not library:
        return
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        os.environ.setdefault("MXNET_LIBRARY_PATH", library)
