"""Room on the disk for what a job leaves in its model directory, known before the first epoch."""

from __future__ import annotations

import math
from pathlib import Path

from mxnet import gluon

from container import artifacts, disk
from container.errors import PlatformError

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


def check_room(network: gluon.Block, model_dir: Path, quantize: bool) -> None:
    """Raise PlatformError unless the disk holds the network's weights, best and last, its graphs, and a copy of one.

    Files that an earlier start left under those names count as room.
    """
    weights, graph = weight_bytes(network), weight_bytes(network, without="auxlayer")
    files = {artifacts.BEST_WEIGHTS: weights, artifacts.LAST_WEIGHTS: weights, artifacts.GRAPH: graph}
    if quantize:
        files[artifacts.INT8_GRAPH] = graph // 3
    there = sum(min(size, _size(model_dir / name)) for name, size in files.items())
    needed = sum(files.values()) + weights - there
    free = disk.free_bytes(model_dir)
    if free is not None and free < needed:
        raise PlatformError(
            f"{disk.LARGER}. {model_dir} cannot hold {', '.join(files)} "
            f"and a copy that is being written: they need {needed} bytes, {free} are free"
        )


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
