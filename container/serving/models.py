"""Loaded models."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np

from container.artifact import model_directory
from container.artifact.classes import ClassEntry, read_classes
from container.engines.loading import load_engine
from container.engines.protocol import Engine, Planner
from container.errors import ClientError
from container.image_range import Range
from container.serving.memory_budget import MemoryBudget, MemoryEstimate, Reservation
from container.serving.requests.deadline import RequestDeadline
from container.serving.requests.latency import LatencyEstimator
from container.serving.settings import ServeSettings

LOG = logging.getLogger("gunicorn.error")  # the server's own log

_WARM_SIDES = (64, 256, 256)  # the first pays for what is set up lazily, the last shows the speed


@dataclasses.dataclass(frozen=True)
class ModelInfo:
    """What is known of a model, also while it is not loaded; `network` is what its archive says of it."""

    num_classes: int
    precision: str
    classes: Mapping[int, ClassEntry]
    network: Mapping[str, Any]
    planner: Planner
    memory: int  # bytes that it takes while it is loaded
    standing: int  # bytes that it comes to keep besides once images come
    image_range: Range | None = None  # samples of 16-bit images that become 0 and 255
    speed: LatencyEstimator = dataclasses.field(default_factory=LatencyEstimator)


@dataclasses.dataclass(frozen=True)
class Model:
    """What answers, and its card."""

    engine: Engine
    card: ModelInfo


class Source(Protocol):
    """Where a request's model comes from."""

    def card(self) -> ModelInfo:
        """Return the model's card."""
        ...

    def weight(self) -> int:
        """Return the bytes that the model takes of what an image could have."""
        ...

    def use(self, account: Reservation, work: MemoryEstimate, clock: RequestDeadline) -> AbstractContextManager[Engine]:
        """Give the loaded model within the block, and take the work's memory, both as soon as they can be had."""
        ...


class SingleModel:
    """The source of an ordinary endpoint: its model stays."""

    def __init__(self, model: Model, ledger: MemoryBudget) -> None:
        self._model = model
        self._ledger = ledger

    def card(self) -> ModelInfo:
        """Return the model's card."""
        return self._model.card

    def weight(self) -> int:
        """Return 0: the ledger's total is what the loaded model has left."""
        return 0

    @contextlib.contextmanager
    def use(self, account: Reservation, work: MemoryEstimate, clock: RequestDeadline) -> Iterator[Engine]:
        """Give the model, and take the work's memory as soon as it can be had."""
        account.wait_for_work(work, clock)
        yield self._model.engine


def open_model(model_dir: Path, settings: ServeSettings) -> Model:
    """Load and warm the model in `model_dir`; raises ClientError when it is unusable."""
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
    model = describe(engine, read_classes(model_dir), network, model_directory.read_image_range(model_dir))
    for side in _WARM_SIDES:
        begin = time.monotonic()
        engine.mask(np.zeros((side, side, 3), np.uint8))
        model.card.speed.learn(side * side, time.monotonic() - begin)
    engine.release()  # the ledger weighs the loaded model, and promises what it may keep besides
    seconds = time.monotonic() - start
    LOG.info("%s is ready after %.1f s: %s in %s", model_dir, seconds, settings.engine, engine.precision)
    return model


def describe(
    engine: Engine,
    classes: Mapping[int, ClassEntry],
    network: Mapping[str, Any] = MappingProxyType({}),
    image_range: Range | None = None,
) -> Model:
    """Return the engine with its card, which knows no speed yet."""
    costs = engine.planner, engine.memory, engine.standing
    return Model(engine, ModelInfo(engine.num_classes, engine.precision, classes, network, *costs, image_range))
