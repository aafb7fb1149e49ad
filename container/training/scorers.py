"""What answers whole images at the end of a job: on GPUs the network, on CPUs the graph in processes of their own."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from container import artifacts
from container.engines.child import ChildEngine, base_memory
from container.environment import cpu_count, memory_available
from container.mx.network import SegmentationNetwork
from container.mx.scoring import MXNetScorer, without_autotuning
from container.training.scoring import ChildScorer, Scorer
from container.training.until import Until

LOG = logging.getLogger(__name__)

_MEMORY_SHARE = 0.9  # of what is available: libraries and the interpreter take a little, too


@contextlib.contextmanager
def open_scorer(network: SegmentationNetwork, model_dir: Path, until: Until) -> Iterator[Scorer]:
    """Choose what answers: the network where it is on GPUs, one picture per device, else what is in `model_dir`."""
    devices = next(iter(network.collect_params().values())).list_ctx()
    if _are_gpus(devices):
        with without_autotuning():
            yield MXNetScorer(network, devices, until)
        return
    name, source = "openvino", model_dir / artifacts.GRAPH
    if not source.is_file():
        LOG.warning("without %s MXNet scores, which takes twice the time and memory", source.name)
        name, source = "mxnet", model_dir
    with open_children(name, [source], until) as scorer:
        yield scorer


@contextlib.contextmanager
def open_children(name: str, sources: list[Path], until: Until) -> Iterator[Scorer]:
    """Open a model per source, each in a process of its own; together they have the memory that is available."""
    files = [source / artifacts.BEST_WEIGHTS if source.is_dir() else source for source in sources]
    memory = int(memory_available() * _MEMORY_SHARE) - sum(map(base_memory, files))
    with contextlib.ExitStack() as opened:
        engines = [
            opened.enter_context(
                contextlib.closing(ChildEngine(source, threads=cpu_count(), memory=max(0, memory), until=until))
            )
            for source in sources
        ]
        yield ChildScorer(name, engines)


def _are_gpus(devices: list[Any]) -> bool:
    return bool(devices[0].device_type == "gpu")
