"""Disk space that a job needs in the model directory."""

from __future__ import annotations

import logging
import math
from pathlib import Path

from mxnet import gluon

from container.artifact import disk, model_directory
from container.errors import PlatformError

LOG = logging.getLogger(__name__)

_FLOAT32 = 4
_HEADER = 256  # maximum bytes of the header and the name of an array


def weight_bytes(network: gluon.Block, without: str = "-") -> int:
    """Return the approximate bytes of the float32 weights of the model, without the part named `without`."""
    parameters = network._collect_params_with_prefix()
    return sum(
        math.prod(parameter.shape) * _FLOAT32 + _HEADER
        for name, parameter in parameters.items()
        if not name.startswith(f"{without}.")
    )


def check_disk_space(network: gluon.Block, model_dir: Path, quantize: bool) -> int:
    """Raise PlatformError if the best and last weights, the ONNX models, and a copy of one file do not fit on the disk.

    Files with these names from an earlier start count as free space. Returns the number of bytes still to be written.
    """
    weights, graph = weight_bytes(network), weight_bytes(network, without="auxlayer")
    files = {model_directory.BEST_WEIGHTS: weights, model_directory.LAST_WEIGHTS: weights, model_directory.GRAPH: graph}
    if quantize:
        files[model_directory.INT8_GRAPH] = graph // 3
    there = sum(min(size, _size(model_dir / name)) for name, size in files.items())
    needed = sum(files.values()) + weights - there
    free = disk.free_bytes(model_dir)
    if free is not None and free < needed:
        raise PlatformError(
            f"{disk.LARGER}. {', '.join(files)} and a temporary copy do not fit in {model_dir}: they need {needed} "
            f"bytes, and {free} are free"
        )
    return needed


def check_checkpoint_room(folder: Path, size: int, there: int, model_dir: Path, model: int) -> None:
    """Raise PlatformError if two checkpoints of `size` bytes, the current and the next, do not fit on the disk.

    `there` is the size of existing checkpoints, which are replaced. `model` is the size that `model_dir` still needs,
    which counts if it is on the same disk. Logs a warning if a third checkpoint does not fit, because the older of the
    two retained checkpoints is then removed earlier.
    """
    free = disk.free_bytes(folder)
    model_bytes = model if disk.is_same(folder, model_dir) else 0
    if free is None or free + there >= 3 * size + model_bytes:
        return
    sizes = f"a checkpoint needs {size} bytes" + (f", the model needs {model_bytes} bytes" if model_bytes else "")
    if free + there < 2 * size + model_bytes:
        raise PlatformError(
            f"{disk.LARGER}. Two checkpoints, the current and the next, do not fit in {folder}: {sizes}, and {free} "
            "bytes are free"
        )
    LOG.warning(
        "Three checkpoints do not fit in %s: %s, and %d bytes are free. The job removes the older of the two retained "
        "checkpoints before it writes the next one. To retain both, use a larger volume (volume_size).",
        folder,
        sizes,
        free,
    )


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
