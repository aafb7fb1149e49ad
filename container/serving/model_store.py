"""The models of a multi-model endpoint: load, unload, and reload within the memory budget."""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import functools
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from pathlib import Path

from container.artifact import model_directory
from container.engines.costs import estimate_exact, estimate_loaded
from container.engines.onnx_model import conversion_memory
from container.engines.protocol import Engine
from container.errors import ClientError, RequestError
from container.serving.memory_budget import MemoryBudget, MemoryEstimate, Reservation
from container.serving.models import LOG, Model, ModelInfo, ModelSource
from container.serving.requests import errors
from container.serving.requests.deadline import POLL_SECONDS, RequestDeadline

_MINIMUM_WORK = MemoryEstimate(2**26)  # must be free in addition, or the model could be loaded but not used

_NAME_LENGTH = 1024


def estimate_memory(model_dir: Path) -> tuple[int, int]:
    """Return the bytes that the model in `model_dir` needs when it is loaded, and in addition while it is loading.

    The estimate uses the sizes of the weights and the ONNX model. Raises ClientError if there is no model.
    """
    weights, onnx_model = model_dir / model_directory.BEST_WEIGHTS, model_dir / model_directory.GRAPH
    try:
        size = weights.stat().st_size
    except (OSError, ValueError) as error:
        raise ClientError(f"{str(model_dir)[:200]} contains no model: {weights.name} is missing") from error
    if onnx_model.is_file():
        size, converting = max(size, onnx_model.stat().st_size), 0
    else:
        converting = conversion_memory(size)
    return estimate_loaded(size), max(converting, estimate_exact(size))


class _State(enum.Enum):
    UNLOADED = enum.auto()
    LOADING = enum.auto()
    LOADED = enum.auto()


class _Entry:
    """One model of the store. After DELETE, `deleted` is set, and the model is unloaded after its last request."""

    def __init__(self, name: str, model_dir: Path, size: int, converting: int) -> None:
        self.name = name
        self.model_dir = model_dir
        self.estimate = self.size, self.converting = size, converting
        self.state = _State.UNLOADED
        self.in_flight = 0  # requests that use the model
        self.deleted = False
        self.engine: Engine | None = None
        self.info: ModelInfo | None = None  # None until the model is loaded for the first time
        self.error: BaseException | None = None


class ModelStore:
    """Models by name, in a memory budget. `changed` of the budget guards all entries.

    If the memory for a model is not free, the store unloads other models, the least recently used first, and reloads
    them when a request arrives: SageMaker AI continues to regard them as loaded. Models in use are never unloaded. A
    request to an unloaded model waits until its deadline. A request to load one fails immediately with 507, and
    SageMaker AI then unloads some. The budget does not include what engines retain between images: of the unused
    engines, only the last used one retains it. `model_memory` limits the bytes of all loaded models.
    """

    def __init__(
        self,
        open_: Callable[[Path], Model],
        estimate: Callable[[Path], tuple[int, int]],
        budget: MemoryBudget,
        executor: Executor,
        model_memory: int | None = None,
    ) -> None:
        self._open = open_
        self._estimate = estimate
        self._budget = budget
        self._executor = executor
        self._model_memory = model_memory
        self._is_loading = False  # one model at a time: loading uses all cores
        self._entries: OrderedDict[str, _Entry] = OrderedDict()  # the least recently used first
        self._last_used: _Entry | None = None

    def directories(self) -> dict[str, Path]:
        """Return the directories of all models by name."""
        with self._budget.changed:
            return {name: entry.model_dir for name, entry in sorted(self._entries.items()) if entry.info}

    def load(self, name: str, model_dir: Path, deadline: RequestDeadline) -> None:
        """Load a model.

        Raises RequestError: 409 if a model has the name, 507 if not enough memory is free, 400 if it is unusable.
        """
        if name in ("", ".", "..") or "/" in name or not name.isprintable() or len(name) > _NAME_LENGTH:
            raise RequestError(400, f"model_name must be 1 to {_NAME_LENGTH} printable characters without /, not a dot")
        try:
            entry = _Entry(name, model_dir, *self._estimate(model_dir))
        except ClientError as error:
            raise RequestError(400, str(error)) from error
        with self._budget.changed:
            if name in self._entries:
                raise RequestError(409, f"the model {name} is already loaded")
            self._entries[name] = entry
            try:
                self._wait_until(lambda: not self._is_loading, deadline)
                if not self._make_room(entry, _MINIMUM_WORK):
                    raise RequestError(507, f"not enough memory for the model {name}: {self._shortage(entry)}")
                self._start_loading(entry)
                self._wait_until(lambda: entry.state is not _State.LOADING, deadline)
                if isinstance(entry.error, ClientError):
                    raise RequestError(400, str(entry.error)) from entry.error
                if entry.error:
                    raise RequestError(500, f"the model {name} cannot be loaded; the endpoint's log has the details")
            except BaseException:
                self._delete(entry)
                raise

    def unload(self, name: str) -> None:
        """Delete a model after its running requests; raises RequestError 404 if it is not loaded."""
        with self._budget.changed:
            self._delete(self._find(name)[0])

    def source(self, name: str) -> ModelSource:
        """Return the access of a request to a model; raises RequestError 404 if it is not loaded."""
        with self._budget.changed:
            entry, info = self._find(name)
            return ModelSource(info, entry.size, functools.partial(self._use, name, info))

    @contextlib.contextmanager
    def _use(
        self, name: str, info: ModelInfo, reservation: Reservation, estimate: MemoryEstimate, deadline: RequestDeadline
    ) -> Iterator[Engine]:
        """Yield the engine of a model that stays loaded within the block, with the estimated memory reserved.

        Raises RequestError 404, or 503 if the model is no longer the one of `info`; and what the deadline raises.
        """
        with self._budget.changed:
            entry, _ = self._find(name)
            self._entries.move_to_end(name)
            self._wait_until_ready(entry, estimate, deadline)
            if not _is_same(info, entry.info):
                raise errors.model_changed(name)
            reservation.reserve_estimate(estimate)
            entry.in_flight += 1
            engine = entry.engine
            assert engine is not None
            previous, self._last_used = self._last_used, entry
            if previous is not None:
                self._release_if_unused(previous)
        try:
            yield engine
        finally:
            with self._budget.changed:
                entry.in_flight -= 1
                self._unload_if_deleted(entry)
                self._release_if_unused(entry)
                self._budget.changed.notify_all()

    def _release_if_unused(self, entry: _Entry) -> None:
        """Release what an engine retains between images, unless it is in use or the last used one."""
        if entry.engine is not None and not entry.in_flight and entry is not self._last_used:
            self._executor.submit(entry.engine.release)

    def _wait_until_ready(self, entry: _Entry, estimate: MemoryEstimate, deadline: RequestDeadline) -> None:
        """Wait until the model is loaded and the estimated memory is free; load the model if it is unloaded."""

        def can_continue() -> bool:
            if entry.deleted or entry.state is _State.LOADING:
                return True
            return not (self._is_loading and entry.state is _State.UNLOADED) and self._make_room(entry, estimate)

        while True:
            if entry.deleted:
                raise RequestError(404, f"the model {entry.name} is not loaded")
            if entry.state is _State.LOADING:
                self._wait_until(lambda: entry.state is not _State.LOADING, deadline)
                if entry.error:
                    raise _reload_error(entry, entry.error) from entry.error
                continue
            if entry.state is _State.UNLOADED:
                self._update_estimate(entry)
            self._budget.wait_until(can_continue, deadline)
            if entry.state is _State.LOADED and not entry.deleted:
                return
            if entry.state is _State.UNLOADED and not entry.deleted:
                self._start_loading(entry)

    def _update_estimate(self, entry: _Entry) -> None:
        """Estimate the memory of an unloaded model again if its files have changed."""
        try:
            estimate = self._estimate(entry.model_dir)
        except ClientError as error:
            _log_error(entry, error)
            raise _reload_error(entry, error) from error
        if estimate != entry.estimate:
            entry.estimate = entry.size, entry.converting = estimate

    def _wait_until(self, condition: Callable[[], bool], deadline: RequestDeadline) -> None:
        while not condition():
            deadline.check()
            self._budget.changed.wait(POLL_SECONDS)

    def _start_loading(self, entry: _Entry) -> None:
        """Start to load a model, for which enough memory is free; the request can end before the model is loaded."""
        entry.state, entry.error, self._is_loading = _State.LOADING, None, True
        self._budget.reserve("models", entry.size + entry.converting)
        future: Future[Model] = self._executor.submit(self._open, entry.model_dir)
        future.add_done_callback(lambda done: self._finish_loading(entry, done))

    def _finish_loading(self, entry: _Entry, done: Future[Model]) -> None:
        with self._budget.changed:
            self._is_loading = False
            self._budget.release("models", entry.converting)
            try:
                model = done.result()
            except BaseException as error:
                entry.state, entry.error = _State.UNLOADED, error
                self._budget.release("models", entry.size)
                _log_error(entry, error)
                return
            entry.state, entry.engine = _State.LOADED, model.engine
            if not _is_same(model.info, entry.info):
                entry.info = model.info  # else retain the learned latency
            self._budget.reserve("models", model.info.memory)
            self._budget.release("models", entry.size)
            entry.size = model.info.memory
            self._unload_if_deleted(entry)

    def _make_room(self, entry: _Entry, estimate: MemoryEstimate) -> bool:
        """Return whether the model and the estimate fit; if so, unload the least recently used models as needed."""
        needed = 0 if entry.state is _State.LOADED else entry.size + entry.converting
        shortage = self._budget.shortage(estimate, needed)
        if self._model_memory is not None:
            shortage = max(shortage, self._budget.reserved["models"] + needed - self._model_memory)
        unused = [e for e in self._entries.values() if e.state is _State.LOADED and not e.in_flight and e is not entry]
        if shortage > sum(other.size for other in unused):
            return False
        for other in unused:
            if shortage > 0:
                shortage -= other.size
                self._unload(other)
        return True

    def _shortage(self, entry: _Entry) -> str:
        free = max(0, self._budget.total - self._budget.body_limit - self._budget.reserved.total())
        needed = entry.size + entry.converting + _MINIMUM_WORK.base
        return f"it needs {needed // 2**20} MB, {free // 2**20} MB are free; unload another model"

    def _unload(self, entry: _Entry) -> None:
        entry.state, entry.engine = _State.UNLOADED, None
        self._budget.release("models", entry.size)

    def _unload_if_deleted(self, entry: _Entry) -> None:
        if entry.deleted and not entry.in_flight and entry.state is _State.LOADED:
            self._unload(entry)

    def _delete(self, entry: _Entry) -> None:
        self._entries.pop(entry.name, None)
        entry.deleted = True
        self._unload_if_deleted(entry)

    def _find(self, name: str) -> tuple[_Entry, ModelInfo]:
        entry = self._entries.get(name)
        if entry is None or entry.info is None:  # the request that loads it has not been answered yet
            raise RequestError(404, f"the model {name} is not loaded")
        return entry, entry.info


def _is_same(info: ModelInfo, other: ModelInfo | None) -> bool:
    """Return whether two models are equal except for their learned latency."""
    return other is not None and dataclasses.replace(info, latency=other.latency) == other


def _reload_error(entry: _Entry, cause: BaseException) -> RequestError:
    """Return the error of a request to a model that can no longer be loaded, without a path."""
    problem = f"the model {entry.name} can no longer be loaded"
    if isinstance(cause, ClientError):
        return RequestError(400, f"{problem}: its files have changed; the endpoint's log has the details")
    return RequestError(500, f"{problem}; the endpoint's log has the details")


def _log_error(entry: _Entry, error: BaseException) -> None:
    """Log why a model cannot be loaded, without a traceback if its files are the reason."""
    if isinstance(error, ClientError):
        LOG.error("the model %s cannot be loaded: %s", entry.name, error)
    else:
        LOG.error("the model %s cannot be loaded", entry.name, exc_info=error)
