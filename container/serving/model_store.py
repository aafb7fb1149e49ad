"""The models of a multi-model endpoint: load, unload, and reload within the memory budget."""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import logging
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
from container.serving.models import Model, ModelInfo
from container.serving.requests.deadline import POLL_SECONDS, RequestDeadline
from container.serving.requests.errors import ServiceUnavailableError

_LOG = logging.getLogger("gunicorn.error")  # the server's own log

_LEAST_WORK = MemoryEstimate(2**26)  # without which a model could be loaded but not used

_NAME_LENGTH = 1024


def estimate_memory(model_dir: Path) -> tuple[int, int]:
    """Return how many bytes the model in `model_dir` takes once it is loaded, and how many more while it is loaded.

    By the sizes of its weights and its graph. Raises ClientError where there is no model.
    """
    weights, graph = model_dir / model_directory.BEST_WEIGHTS, model_dir / model_directory.GRAPH
    try:
        size = weights.stat().st_size
    except (OSError, ValueError) as error:
        raise ClientError(f"{str(model_dir)[:200]} holds no model: {weights.name} is missing") from error
    if graph.is_file():
        size, converting = max(size, graph.stat().st_size), 0
    else:
        converting = conversion_memory(size)
    return estimate_loaded(size), max(converting, estimate_exact(size))


def _is_same(card: ModelInfo, other: ModelInfo | None) -> bool:
    """Say whether two cards are of models that answer alike, but for what has been learnt of their speed."""
    return other is not None and dataclasses.replace(card, speed=other.speed) == other


class _State(enum.Enum):
    ASLEEP = enum.auto()
    WAKING = enum.auto()
    AWAKE = enum.auto()


class _Entry:
    """One model: where it lies, what it takes, and while it is awake what answers.

    `leaving` is set when it has been unloaded: then it sleeps as soon as nobody uses it, for good.
    """

    def __init__(self, name: str, model_dir: Path, size: int, converting: int) -> None:
        self.name = name
        self.model_dir = model_dir
        self.measured = self.size, self.converting = size, converting
        self.state = _State.ASLEEP
        self.users = 0
        self.leaving = False
        self.engine: Engine | None = None
        self.card: ModelInfo | None = None
        self.failure: BaseException | None = None


class ModelStore:
    """Models by name; what they take is the ledger's.

    A model for which there is no room any more is put to sleep, the least recently used first, and wakes when it is
    asked for: the platform goes on regarding it as loaded. What is being used is never put to sleep: who wants to wake
    another waits within the request's time; who wants to load one hears 507 at once, as the platform then unloads some.
    What engines keep between two images is not entered: of those that nobody uses, only the last used one keeps it.
    """

    def __init__(
        self,
        open_: Callable[[Path], Model],
        measure: Callable[[Path], tuple[int, int]],
        ledger: MemoryBudget,
        executor: Executor,
        budget: int | None = None,
    ) -> None:
        self._open = open_
        self._measure = measure
        self._ledger = ledger
        self._executor = executor
        self._budget = budget
        self._is_loading = False  # one at a time: loading takes all cores
        self._entries: OrderedDict[str, _Entry] = OrderedDict()  # the least recently used first
        self._last_used: _Entry | None = None

    def names(self) -> dict[str, Path]:
        """Return the directories of all models by name."""
        with self._ledger.changed:
            return {name: entry.model_dir for name, entry in sorted(self._entries.items()) if entry.card}

    def load(self, name: str, model_dir: Path, clock: RequestDeadline) -> None:
        """Load a model; raises RequestError: 409 when there is one of that name, 507 without room, 400 if unusable."""
        if name in ("", ".", "..") or "/" in name or not name.isprintable() or len(name) > _NAME_LENGTH:
            raise RequestError(400, f"model_name must be 1 to {_NAME_LENGTH} printable characters without /, not a dot")
        try:
            entry = _Entry(name, model_dir, *self._measure(model_dir))
        except ClientError as error:
            raise RequestError(400, str(error)) from error
        with self._ledger.changed:
            if name in self._entries:
                raise RequestError(409, f"the model {name} is loaded already")
            self._entries[name] = entry
            try:
                self._await(lambda: not self._is_loading, clock)
                if not self._has_room(entry, _LEAST_WORK):
                    raise RequestError(507, f"no memory for the model {name}: {self._missing(entry)}")
                self._wake(entry)
                self._await(lambda: entry.state is not _State.WAKING, clock)
                self._check(entry)
            except BaseException:
                self._forget(entry)
                raise

    def unload(self, name: str) -> None:
        """Forget a model, whose running requests are still answered; raises RequestError 404 when there is none."""
        with self._ledger.changed:
            self._forget(self._find(name))

    def source(self, name: str) -> LoadedModel:
        """Return the source of the requests to a model."""
        return LoadedModel(self, name)

    def card(self, name: str) -> ModelInfo:
        """Return a model's card; raises RequestError 404."""
        with self._ledger.changed:
            card = self._find(name).card
        assert card is not None  # or it would not have been found
        return card

    def weight(self, name: str) -> int:
        """Return how many bytes a model takes while it is awake; raises RequestError 404."""
        with self._ledger.changed:
            return self._find(name).size

    @contextlib.contextmanager
    def use(
        self,
        name: str,
        account: Reservation,
        work: MemoryEstimate,
        clock: RequestDeadline,
        card: ModelInfo | None = None,
    ) -> Iterator[Engine]:
        """Give a model that stays awake within the block, with the work's memory to work in.

        Raises RequestError: 404, or 503 when the model is not that of `card` any more; or what the clock raises while
        it waits for the model and the memory, both at once.
        """
        with self._ledger.changed:
            entry = self._find(name)
            self._entries.move_to_end(name)
            self._ready(entry, work, clock)
            if card is not None and not _is_same(card, entry.card):
                raise ServiceUnavailableError(f"the model {name} has changed since the request came; try again")
            account.take_work(work)
            entry.users += 1
            engine = entry.engine
            assert engine is not None
            before, self._last_used = self._last_used, entry
            if before is not None:
                self._release_if_idle(before)
        try:
            yield engine
        finally:
            with self._ledger.changed:
                entry.users -= 1
                self._sleep_if_leaving(entry)
                self._release_if_idle(entry)
                self._ledger.changed.notify_all()

    def _release_if_idle(self, entry: _Entry) -> None:
        """Let an engine that others have followed give back what it keeps."""
        if entry.engine is not None and not entry.users and entry is not self._last_used:
            self._executor.submit(entry.engine.release)

    def _ready(self, entry: _Entry, work: MemoryEstimate, clock: RequestDeadline) -> None:
        """Wait until the entry is awake and the memory for the work is there; wake it when it sleeps."""

        def can_go_on() -> bool:
            if entry.leaving or entry.state is _State.WAKING:
                return True
            return not (self._is_loading and entry.state is _State.ASLEEP) and self._has_room(entry, work)

        while True:
            if entry.leaving:
                raise RequestError(404, f"the model {entry.name} is not loaded")
            if entry.state is _State.WAKING:
                self._await(lambda: entry.state is not _State.WAKING, clock)
                if entry.failure:
                    raise self._lost(entry, entry.failure) from entry.failure
                continue
            if entry.state is _State.ASLEEP:
                self._measure_again(entry)
            self._ledger.wait_for(can_go_on, clock)
            if entry.state is _State.AWAKE and not entry.leaving:
                return
            if entry.state is _State.ASLEEP and not entry.leaving:
                self._wake(entry)

    def _measure_again(self, entry: _Entry) -> None:
        """Enter what a model takes whose files have changed while it was asleep."""
        try:
            measured = self._measure(entry.model_dir)
        except ClientError as error:
            self._report(entry, error)
            raise self._lost(entry, error) from error
        if measured != entry.measured:
            entry.measured = entry.size, entry.converting = measured

    def _lost(self, entry: _Entry, failure: BaseException) -> RequestError:
        """Return the error of a request to a model that can no longer be loaded, which names no path."""
        name = f"the model {entry.name} cannot be loaded any more"
        if isinstance(failure, ClientError):
            return RequestError(400, f"{name}: its files have changed; the endpoint's log has the details")
        return RequestError(500, f"{name}; the endpoint's log has the details")

    def _report(self, entry: _Entry, failure: BaseException) -> None:
        """Log why a model cannot be loaded: in one line, if the files are the reason."""
        if isinstance(failure, ClientError):
            _LOG.error("the model %s cannot be loaded: %s", entry.name, failure)
        else:
            _LOG.error("the model %s cannot be loaded", entry.name, exc_info=failure)

    def _await(self, condition: Callable[[], bool], clock: RequestDeadline) -> None:
        while not condition():
            clock.check()
            self._ledger.changed.wait(POLL_SECONDS)

    def _wake(self, entry: _Entry) -> None:
        """Begin to load an entry, for which there is room; whoever asked may leave meanwhile."""
        entry.state, entry.failure, self._is_loading = _State.WAKING, None, True
        self._ledger.take("models", entry.size + entry.converting)
        future: Future[Model] = self._executor.submit(self._open, entry.model_dir)
        future.add_done_callback(lambda done: self._awake(entry, done))

    def _awake(self, entry: _Entry, done: Future[Model]) -> None:
        with self._ledger.changed:
            self._is_loading = False
            self._ledger.give("models", entry.converting)
            try:
                model = done.result()
            except BaseException as error:
                entry.state, entry.failure = _State.ASLEEP, error
                self._ledger.give("models", entry.size)
                self._report(entry, error)
                return
            entry.state, entry.engine = _State.AWAKE, model.engine
            if not _is_same(model.card, entry.card):
                entry.card = model.card  # else its speed has been learnt already
            self._settle(entry, model.card.memory)
            self._sleep_if_leaving(entry)

    def _settle(self, entry: _Entry, size: int) -> None:
        """Enter what the loaded model takes instead of what it might have."""
        self._ledger.take("models", size)
        self._ledger.give("models", entry.size)
        entry.size = size

    def _check(self, entry: _Entry) -> None:
        if isinstance(entry.failure, ClientError):
            raise RequestError(400, str(entry.failure)) from entry.failure
        if entry.failure:
            raise RequestError(500, f"the model {entry.name} cannot be loaded; the endpoint's log has the details")

    def _has_room(self, entry: _Entry, work: MemoryEstimate) -> bool:
        """Say whether an entry can be awake and work, once those that nobody has used for longest are put to sleep."""
        needed = 0 if entry.state is _State.AWAKE else entry.size + entry.converting
        over = max(0, self._ledger.taken["models"] + needed - self._budget) if self._budget is not None else 0
        short = max(self._ledger.short(work, needed), over)
        idle = [e for e in self._entries.values() if e.state is _State.AWAKE and not e.users and e is not entry]
        if short > sum(other.size for other in idle):
            return False
        for other in idle:
            if short > 0:
                short -= other.size
                self._sleep(other)
        return True

    def _missing(self, entry: _Entry) -> str:
        left = max(0, self._ledger.total - self._ledger.bodies - self._ledger.taken.total())
        needed = entry.size + entry.converting + _LEAST_WORK.kept
        return f"it needs {needed // 2**20} MB, {left // 2**20} MB are left; unload another model"

    def _sleep(self, entry: _Entry) -> None:
        entry.state, entry.engine = _State.ASLEEP, None
        self._ledger.give("models", entry.size)

    def _sleep_if_leaving(self, entry: _Entry) -> None:
        if entry.leaving and not entry.users and entry.state is _State.AWAKE:
            self._sleep(entry)

    def _forget(self, entry: _Entry) -> None:
        self._entries.pop(entry.name, None)
        entry.leaving = True
        self._sleep_if_leaving(entry)

    def _find(self, name: str) -> _Entry:
        entry = self._entries.get(name)
        if entry is None or entry.card is None:  # of which nobody has heard that it is loaded
            raise RequestError(404, f"the model {name} is not loaded")
        return entry


class LoadedModel:
    """The source of the requests to one model of a store."""

    def __init__(self, store: ModelStore, name: str) -> None:
        self._store = store
        self._name = name
        self._card: ModelInfo | None = None

    def card(self) -> ModelInfo:
        """Return the model's card, which has to be that of the model used."""
        self._card = self._store.card(self._name)
        return self._card

    def weight(self) -> int:
        """Return the bytes that the model takes of what an image could have."""
        return self._store.weight(self._name)

    def use(
        self, account: Reservation, work: MemoryEstimate, clock: RequestDeadline
    ) -> contextlib.AbstractContextManager[Engine]:
        """Give the loaded model within the block, and take the work's memory, both as soon as they can be had."""
        return self._store.use(self._name, account, work, clock, self._card)
