"""Loaded models: what is known of them, and how they are opened."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from container.artifact import model_directory
from container.artifact.classes import ClassEntry, read_classes
from container.engines.loading import load_engine
from container.engines.protocol import Engine, Planner
from container.errors import ClientError
from container.image_range import Range
from container.serving.memory_budget import MemoryEstimate, Reservation
from container.serving.requests.deadline import RequestDeadline
from container.serving.settings import ServeSettings

LOG = logging.getLogger("gunicorn.error")  # the log of the server

_WARM_UP_SIDES = (64, 256, 256)  # the first inference includes the initialization, the last one measures the latency

_SMALL_IMAGE = 2**15  # pixels, below which the latency does not depend on the size
_NEWEST_WEIGHT = 0.3  # of the newest duration in the moving average


class LatencyEstimator:
    """Estimate of the inference time of an image, learned from earlier requests; 0 before the first one."""

    def __init__(self) -> None:
        self._constant = 0.0
        self._per_pixel = 0.0
        self._fastest = 0.0  # seconds per pixel of the fastest image

    def update(self, pixels: int, seconds: float) -> None:
        """Add the duration of an image that did not wait."""
        if pixels < _SMALL_IMAGE:
            self._constant = _average(self._constant, max(0.0, seconds - pixels * self._per_pixel))
            return
        per_pixel = max(0.0, seconds - self._constant) / pixels
        self._per_pixel = _average(self._per_pixel, per_pixel)
        self._fastest = min(per_pixel, self._fastest or per_pixel)

    def estimate(self, pixels: int) -> float:
        """Return the expected seconds for an image."""
        return self._constant + pixels * self._per_pixel

    def minimum(self, pixels: int) -> float:
        """Return the seconds for an image at the speed of the fastest one, by which images are rejected with 413."""
        return pixels * self._fastest


def _average(average: float, newest: float) -> float:
    return average + _NEWEST_WEIGHT * (newest - average) if average else newest


@dataclasses.dataclass(frozen=True)
class ModelInfo:
    """What is known of a model, also while it is unloaded; `network` is the content of its hyperparameters file."""

    num_classes: int
    precision: str
    classes: Mapping[int, ClassEntry]
    network: Mapping[str, Any]
    planner: Planner
    memory: int  # bytes of the loaded model
    standing: int  # bytes that the engine retains in addition after the first images
    image_range: Range | None = None  # samples of 16-bit images that become 0 and 255
    latency: LatencyEstimator = dataclasses.field(default_factory=LatencyEstimator)


@dataclasses.dataclass(frozen=True)
class Model:
    """A loaded model: the engine, and what is known of it."""

    engine: Engine
    info: ModelInfo


@dataclasses.dataclass(frozen=True)
class ModelSource:
    """Access of one request to its model.

    `memory` is the number of bytes that the model uses of the memory for one image. `use(reservation, estimate,
    deadline)` waits until the model is loaded and the estimated memory is reserved, and yields the engine.
    """

    info: ModelInfo
    memory: int
    use: Callable[[Reservation, MemoryEstimate, RequestDeadline], AbstractContextManager[Engine]]


def single_model(model: Model) -> ModelSource:
    """Return the source of a single-model endpoint; the total of its memory budget does not include the model."""

    @contextlib.contextmanager
    def use(reservation: Reservation, estimate: MemoryEstimate, deadline: RequestDeadline) -> Iterator[Engine]:
        reservation.wait_for_memory(estimate, deadline)
        yield model.engine

    return ModelSource(model.info, 0, use)


def open_model(model_dir: Path, settings: ServeSettings) -> Model:
    """Load the model in `model_dir` and run it on images of zeros; raises ClientError if it is unusable."""
    try:
        return _open(model_dir, settings)
    except OSError as error:
        path = Path(os.fsdecode(error.filename)) if isinstance(error.filename, (str, bytes)) else None
        if path is None or not path.is_relative_to(model_dir):
            raise
        raise ClientError(f"{path} cannot be read: {error.strerror}. Check the file and its permissions.") from error


def _open(model_dir: Path, settings: ServeSettings) -> Model:
    start = time.monotonic()
    network = model_directory.read_model_settings(model_dir)
    num_classes = network["num_classes"]
    engine = load_engine(model_dir, settings)
    if engine.num_classes != num_classes:
        described = f"{model_directory.HYPERPARAMETERS} describes {num_classes} classes"
        raise ClientError(f"{model_dir}: {described}, its graph has {engine.num_classes}: they are of different jobs")
    model = create_model(engine, read_classes(model_dir), network, model_directory.read_image_range(model_dir))
    for side in _WARM_UP_SIDES:
        begin = time.monotonic()
        engine.mask(np.zeros((side, side, 3), np.uint8))
        model.info.latency.update(side * side, time.monotonic() - begin)
    engine.release()  # the memory budget measures the loaded model and reserves the rest separately
    seconds = time.monotonic() - start
    LOG.info("%s is ready after %.1f s: %s in %s", model_dir, seconds, settings.engine, engine.precision)
    return model


def create_model(
    engine: Engine,
    classes: Mapping[int, ClassEntry],
    network: Mapping[str, Any] = MappingProxyType({}),
    image_range: Range | None = None,
) -> Model:
    """Return the engine with its information, whose latency is not known yet."""
    costs = engine.planner, engine.memory, engine.standing
    return Model(engine, ModelInfo(engine.num_classes, engine.precision, classes, network, *costs, image_range))
