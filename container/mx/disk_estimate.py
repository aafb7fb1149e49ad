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
_HEADER = 256  # bytes beside an array's values at most: its header and its name


def weight_bytes(network: gluon.Block, without: str = "-") -> int:
    """Return about how many bytes the network's weights take as float32, without the part of that name."""
    parameters = network._collect_params_with_prefix()
    return sum(
        math.prod(parameter.shape) * _FLOAT32 + _HEADER
        for name, parameter in parameters.items()
        if not name.startswith(f"{without}.")
    )


def check_disk_space(network: gluon.Block, model_dir: Path, quantize: bool) -> int:
    """Raise PlatformError unless the disk holds the network's weights, best and last, its graphs, and a copy of one.

    Files that an earlier start left under those names count as room. Returns how many bytes are still to be written.
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
            f"{disk.LARGER}. {model_dir} cannot hold {', '.join(files)} "
            f"and a copy that is being written: they need {needed} bytes, {free} are free"
        )
    return needed


def check_checkpoint_room(folder: Path, size: int, there: int, model_dir: Path, model: int) -> None:
    """Raise PlatformError unless the disk of `folder` holds two checkpoints of `size` bytes: one, and the next.

    `there` are the bytes of those that are there already, and give way; `model` are those that `model_dir` still needs,
    which count where it is on the same disk. Logs it when a third does not fit, for of the two that are kept the older
    one gives way then.
    """
    free = disk.free_bytes(folder)
    beside = model if disk.is_same(folder, model_dir) else 0
    if free is None or free + there >= 3 * size + beside:
        return
    told = f"a checkpoint takes {size} bytes" + (f", the model beside it {beside}" if beside else "")
    if free + there < 2 * size + beside:
        raise PlatformError(
            f"{disk.LARGER}. {folder} cannot hold a checkpoint and the next one: {told}, {free} are free"
        )
    LOG.warning(
        "%s has room for one checkpoint and the next, not for the two that are kept: %s, %d are free; "
        "the older one is removed when its room is needed (volume_size gives more)",
        folder,
        told,
        free,
    )


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
