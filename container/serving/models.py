"""Loaded models: one for an ordinary endpoint, many under a memory budget for a multi-model endpoint."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from container import artifacts
from container.classes import ClassEntry, read_classes
from container.engines.choice import open_engine
from container.engines.protocol import Engine
from container.errors import ClientError, RequestError
from container.serve_settings import ServeSettings

LOG = logging.getLogger("gunicorn.error")  # the server's own log

# Measured in a process with four models of a kind, float32: each took 1.8 to 1.9 times its weights once it was loaded,
# and with its first 480×480 image 200 MB (fcn), 220 (deeplab) or 280 (psp); in bfloat16 less of both.
_BYTES_PER_WEIGHT_BYTE = 2
_WORKING_BYTES = 280 * 2**20

_PATIENCE = 20.0  # seconds that a request waits for others to be done with their models, so that its own can wake


@dataclasses.dataclass(frozen=True)
class Model:
    """What answers, and what is known of its classes and its network (algorithm, backbone)."""

    engine: Engine
    classes: dict[int, ClassEntry]
    network: dict[str, Any] = dataclasses.field(default_factory=dict)


def open_model(model_dir: Path, settings: ServeSettings) -> Model:
    """Load and warm the model in `model_dir`; raises ClientError when it is unusable."""
    start = time.monotonic()
    network = artifacts.read_model_settings(model_dir)
    num_classes = network["num_classes"]
    engine = open_engine(model_dir, settings)
    if engine.num_classes != num_classes:
        described = f"{artifacts.HYPERPARAMETERS} describes {num_classes} classes"
        raise ClientError(f"{model_dir}: {described}, its graph has {engine.num_classes}: they are of different jobs")
    model = Model(engine, read_classes(model_dir), network)
    seconds = time.monotonic() - start
    LOG.info("%s is ready after %.1f s: %s in %s", model_dir, seconds, settings.engine, engine.precision)
    return model


def estimate_memory(model_dir: Path) -> int:
    """Return how many bytes the model in `model_dir` takes once it is loaded, by the size of its weights."""
    weights = model_dir / artifacts.BEST_WEIGHTS
    if not weights.is_file():
        raise ClientError(f"{model_dir} holds no model: {weights.name} is missing")
    return weights.stat().st_size * _BYTES_PER_WEIGHT_BYTE + _WORKING_BYTES


class ModelStore:
    """Models by name, within `budget` bytes.

    A model for which there is no room any more is put to sleep, the least recently used first, and wakes when it is
    asked for: the platform goes on regarding it as loaded. What is being used is never put to sleep: who needs its room
    to wake another model waits for a while; who wants to load one hears 507 at once, as the platform then unloads some.
    """

    def __init__(self, open_: Callable[[Path], Model], measure: Callable[[Path], int], budget: int) -> None:
        self._open = open_
        self._measure = measure
        self._budget = budget
        self._loading = threading.Lock()  # one model is loaded at a time: loading takes all cores and twice the memory
        self._lock = threading.Lock()
        self._released = threading.Condition(self._lock)  # some model is not being used any more
        self._entries: OrderedDict[str, _Entry] = OrderedDict()  # the least recently used first
        self._used = 0

    def names(self) -> dict[str, Path]:
        """Return the directories of all models by name."""
        with self._lock:
            return {name: entry.model_dir for name, entry in sorted(self._entries.items())}

    def load(self, name: str, model_dir: Path) -> None:
        """Load a model; raises RequestError: 409 when there is one of that name, 507 without room, 400 if unusable."""
        with self._loading:
            if name in self.names():
                raise RequestError(409, f"the model {name} is loaded already")
            try:
                entry = _Entry(model_dir, self._measure(model_dir))
                self._wake(name, entry, patience=0)
            except ClientError as error:
                raise RequestError(400, str(error)) from error
            with self._lock:
                self._entries[name] = entry

    def unload(self, name: str) -> None:
        """Forget a model, whose running requests are still answered; raises RequestError 404 when there is none."""
        with self._lock:
            entry = self._find(name)
            del self._entries[name]
            entry.forgotten = True
            self._release_if_idle(entry)

    @contextlib.contextmanager
    def use(self, name: str) -> Iterator[Model]:
        """Give a model that stays loaded within the block; raises RequestError 404, or 507 when it cannot wake."""
        with self._lock:
            entry = self._find(name)
            entry.users += 1
            self._entries.move_to_end(name)
        try:
            if entry.model is None:
                with self._loading:
                    if entry.model is None:
                        self._wake(name, entry, _PATIENCE)
            assert entry.model is not None
            yield entry.model
        finally:
            with self._lock:
                entry.users -= 1
                self._release_if_idle(entry)

    def _wake(self, name: str, entry: _Entry, patience: float) -> None:
        """Load an entry's model; the caller holds the lock on loading."""
        with self._lock:
            if entry.size > self._budget or not self._released.wait_for(lambda: self._has_room(entry.size), patience):
                megabytes = f"{entry.size // 2**20} MB, {(self._budget - self._used) // 2**20} MB are left"
                raise RequestError(507, f"no memory for the model {name}: it needs {megabytes}; unload another model")
            self._used += entry.size
        try:
            entry.model = self._open(entry.model_dir)
        except BaseException:
            with self._lock:
                self._used -= entry.size
            raise

    def _has_room(self, size: int) -> bool:
        """Say whether `size` bytes are free, once the models that nobody has used for longest are put to sleep."""
        for other in self._entries.values():
            if self._used + size <= self._budget:
                break
            if other.model is not None and not other.users:
                other.model = None
                self._used -= other.size
        return self._used + size <= self._budget

    def _find(self, name: str) -> _Entry:
        if name not in self._entries:
            raise RequestError(404, f"the model {name} is not loaded")
        return self._entries[name]

    def _release_if_idle(self, entry: _Entry) -> None:
        """Free a forgotten model that nobody uses any more, and tell those who wait for room."""
        if entry.forgotten and not entry.users and entry.model is not None:
            entry.model = None
            self._used -= entry.size
        self._released.notify_all()


class _Entry:
    """One model: where it lies and what it takes; `model` is None while it sleeps."""

    def __init__(self, model_dir: Path, size: int) -> None:
        self.model_dir = model_dir
        self.size = size
        self.model: Model | None = None
        self.users = 0
        self.forgotten = False
