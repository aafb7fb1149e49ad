"""Engines of the full-resolution evaluation: MXNet on GPUs, ONNX models in child processes on CPUs."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from container.artifact import model_directory
from container.engines.costs import MemoryModel
from container.engines.subprocess_engine import SubprocessEngine, base_memory, largest_image
from container.environment import cpu_count, memory_available
from container.mx.disk_estimate import weight_bytes
from container.mx.inference.evaluation import MXNetEvaluator, without_autotuning
from container.mx.inference.tiling import reach
from container.mx.networks.segmentation import SegmentationNetwork
from container.training.scoring.deadline import Deadline
from container.training.scoring.evaluation import Evaluator, SubprocessEvaluator

LOG = logging.getLogger(__name__)

_NARROW_BACKBONES = ("resnet-18", "resnet-34")
_MEMORY_SHARE = 0.9  # of what is available: libraries and the interpreter take a little, too


@contextlib.contextmanager
def open_evaluator(network: SegmentationNetwork, model_dir: Path, until: Deadline) -> Iterator[Evaluator]:
    """Choose what answers: the network where it is on GPUs, one picture per device, else what is in `model_dir`."""
    devices = next(iter(network.collect_params().values())).list_ctx()
    if _are_gpus(devices):
        with without_autotuning():
            yield MXNetEvaluator(network, devices, until)
        return
    name, source = "openvino", model_dir / model_directory.GRAPH
    if not source.is_file():
        LOG.warning("without %s MXNet scores, which takes twice the time and memory", source.name)
        name, source = "mxnet", model_dir
    with open_subprocess_evaluators(name, [source], until) as scorer:
        yield scorer


@contextlib.contextmanager
def open_subprocess_evaluators(name: str, sources: list[Path], until: Deadline) -> Iterator[Evaluator]:
    """Open a model per source, each in a process of its own; together they have the memory that is available."""
    files = [source / model_directory.BEST_WEIGHTS if source.is_dir() else source for source in sources]
    memory = int(_memory_left() * _MEMORY_SHARE) - sum(map(base_memory, files))
    with contextlib.ExitStack() as opened:
        engines = [
            opened.enter_context(
                contextlib.closing(SubprocessEngine(source, threads=cpu_count(), memory=max(0, memory), until=until))
            )
            for source in sources
        ]
        yield SubprocessEvaluator(name, engines)


def largest_at_the_end(network: SegmentationNetwork) -> int | None:
    """Return the pixels of the largest image that the scores at a job's end take; None on GPUs: the network answers.

    A validation that takes larger ones would tell a score that the report cannot.
    """
    if _are_gpus(next(iter(network.collect_params().values())).list_ctx()):
        return None
    graph = weight_bytes(network, without="auxlayer")
    is_narrow = network.backbone in _NARROW_BACKBONES
    costs = MemoryModel.of(
        network.num_classes, reach(network), "float32", network.algorithm, is_narrow=is_narrow, graph=graph
    )
    costs = dataclasses.replace(costs, windows=network.windows)
    return largest_image(costs, graph, int(_memory_left() * _MEMORY_SHARE))


def _memory_left() -> int:
    """Return the bytes of memory that are there, once what MXNet has freed is given back."""
    ctypes.CDLL(None).malloc_trim(0)
    return memory_available()


def _are_gpus(devices: list[Any]) -> bool:
    return bool(devices[0].device_type == "gpu")
