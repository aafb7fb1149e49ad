"""Start of a worker: create the application and load the model; exit if the model is unusable."""

from __future__ import annotations

import concurrent.futures
import functools
import logging
import os
import sys
from concurrent.futures import Future
from typing import TYPE_CHECKING

from container.engines.costs import STANDING
from container.errors import ClientError
from container.serving.app import create_app
from container.serving.executor import NativeThreadExecutor
from container.serving.health import Health, stop_server, stop_worker
from container.serving.memory_budget import MemoryBudget, process_memory
from container.serving.model_store import ModelStore, estimate_memory
from container.serving.models import LOG, Model, open_model
from container.serving.requests.log import LOG as REQUEST_LOG
from container.serving.settings import ServeSettings

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

_BOOT_ERROR = 3  # exit status of a worker after which gunicorn stops instead of starting another worker

_THREADS = 64  # at most: one for each concurrent request, and one that loads a model

_LIBRARY_BYTES = 2**27  # of the engine in addition to its first model, and of freed memory that is not reused


def load() -> WSGIApplication:
    """Create the application in a gunicorn worker, and load the model on a thread.

    With several workers, return after the model is loaded, because gunicorn then starts to accept connections.
    """
    settings = ServeSettings.read()
    sys.setswitchinterval(0.001)
    REQUEST_LOG.addHandler(logging.StreamHandler(sys.stdout))
    REQUEST_LOG.setLevel(settings.log_level.upper())
    executor = NativeThreadExecutor(_THREADS)
    budget = create_memory_budget(settings)
    open_ = functools.partial(open_model, settings=settings)
    if settings.multi_model:
        store = ModelStore(open_, estimate_memory, budget, executor, settings.model_memory)
        return create_app(store, settings, health=Health(stop_server), executor=executor, budget=budget)
    model = executor.submit(open_, settings.model_dir)
    app = create_app(model, settings, health=Health(stop_worker), executor=executor, budget=budget)
    model.add_done_callback(lambda done: _finish_startup(done, budget, settings))
    if settings.workers > 1:
        concurrent.futures.wait([model])
    return app


def create_memory_budget(settings: ServeSettings) -> MemoryBudget:
    """Create the memory budget of a worker that has not loaded a model yet."""
    total = _available_memory(settings) - _LIBRARY_BYTES
    if settings.multi_model:
        # the engines in use retain that much; unused models release their memory
        total -= settings.max_concurrent_requests * settings.max_concurrent_inferences * STANDING
    return MemoryBudget(total, settings.image_memory, settings.max_concurrent_inferences)


def _finish_startup(model: Future[Model], budget: MemoryBudget, settings: ServeSettings) -> None:
    """Set the memory budget that remains with the loaded model; stop the server if the model is unusable."""
    error = model.exception()
    if error is None:
        budget.total = _available_memory(settings) - model.result().info.standing
        LOG.info("%d MB of memory are available for requests", budget.total // 2**20)
        return
    if isinstance(error, ClientError):
        LOG.error("ClientError: %s", error)
    else:
        LOG.error("the model cannot be loaded", exc_info=error)
    os._exit(_BOOT_ERROR)  # sys.exit would end only this thread


def _available_memory(settings: ServeSettings) -> int:
    """Return the share of this process in 95% of the memory, minus what the process uses."""
    return max(0, settings.memory * 19 // 20 // settings.workers - process_memory())
