"""Engines of the full-resolution evaluation: MXNet on GPUs, ONNX models in child processes on CPUs."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from container.arrays import Uint8Array
from container.artifact import model_directory
from container.engines.costs import MemoryModel
from container.engines.subprocess_engine import SubprocessEngine, base_memory, largest_image
from container.environment import cpu_count, memory_available
from container.mx.disk_estimate import weight_bytes
from container.mx.inference.evaluation import MXNetEvaluator, without_autotuning
from container.mx.inference.tiling import reach
from container.mx.networks.segmentation import SegmentationNetwork
from container.training.scoring.evaluation import Deadline, Evaluator, Prediction

LOG = logging.getLogger(__name__)

_NARROW_BACKBONES = ("resnet-18", "resnet-34")
_MEMORY_SHARE = 0.9  # of the available memory; libraries and the interpreter use the rest


class SubprocessEvaluator:
    """Models in child processes, which process one image at a time."""

    def __init__(self, name: str, engines: Sequence[SubprocessEngine]) -> None:
        self.name = name
        self.models = len(engines)
        self.batch_size = 1
        self.prefetch = 0  # decoding also needs memory, but hardly any time
        self._engines = engines

    def check_size(self, pixels: int) -> str | None:
        """Return why an image with this number of pixels cannot be evaluated, or None."""
        largest = min(engine.max_pixels for engine in self._engines)
        return None if pixels <= largest else f"need too much memory. The limit is about {largest} pixels"

    def predict(self, images: list[Uint8Array]) -> list[Prediction]:
        """Return the masks of each image."""
        return [self._predict(image) for image in images]

    def _predict(self, image: Uint8Array) -> Prediction:
        try:
            return tuple(engine.mask(image) for engine in self._engines)
        except MemoryError as error:
            return error


@contextlib.contextmanager
def open_evaluator(network: SegmentationNetwork, model_dir: Path, stop: Deadline) -> Iterator[Evaluator]:
    """Open the evaluator of a job: `network` on its GPUs, or else the model in `model_dir` on the CPUs."""
    devices = next(iter(network.collect_params().values())).list_ctx()
    if _are_gpus(devices):
        with without_autotuning():
            yield MXNetEvaluator(network, devices, stop)
        return
    name, source = "openvino", model_dir / model_directory.GRAPH
    if not source.is_file():
        LOG.warning("%s does not exist. The evaluation uses MXNet, with twice the time and memory.", source.name)
        name, source = "mxnet", model_dir
    with open_subprocess_evaluator(name, [source], stop) as evaluator:
        yield evaluator


@contextlib.contextmanager
def open_subprocess_evaluator(name: str, sources: list[Path], stop: Deadline) -> Iterator[Evaluator]:
    """Open one model per source, each in a child process; they share the available memory."""
    files = [source / model_directory.BEST_WEIGHTS if source.is_dir() else source for source in sources]
    memory = int(_free_memory() * _MEMORY_SHARE) - sum(map(base_memory, files))
    with contextlib.ExitStack() as opened:
        engines = [
            opened.enter_context(
                contextlib.closing(SubprocessEngine(source, threads=cpu_count(), memory=max(0, memory), stop=stop))
            )
            for source in sources
        ]
        yield SubprocessEvaluator(name, engines)


def largest_final_image(network: SegmentationNetwork) -> int | None:
    """Return the pixels of the largest image in the evaluation after training; None on GPUs, which use `network`.

    Validation must not use larger images, because its metrics could not be compared with those in the report.
    """
    if _are_gpus(next(iter(network.collect_params().values())).list_ctx()):
        return None
    weights = weight_bytes(network, without="auxlayer")
    is_narrow = network.backbone in _NARROW_BACKBONES
    costs = MemoryModel.of(
        network.num_classes, reach(network), "float32", network.algorithm, is_narrow=is_narrow, weights=weights
    )
    costs = dataclasses.replace(costs, windows=network.windows)
    return largest_image(costs, weights, int(_free_memory() * _MEMORY_SHARE))


def _free_memory() -> int:
    """Return the bytes of available memory, after memory that MXNet freed is released to the system."""
    ctypes.CDLL(None).malloc_trim(0)
    return memory_available()


def _are_gpus(devices: list[Any]) -> bool:
    return bool(devices[0].device_type == "gpu")
