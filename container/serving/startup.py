"""Start of a worker: memory budget, and exit if the model is unusable."""

from __future__ import annotations

import os
from concurrent.futures import Future

from container.engines.costs import STANDING
from container.errors import ClientError
from container.serving.memory_budget import MemoryBudget, weigh
from container.serving.models import LOG, Model
from container.serving.settings import ServeSettings

_BOOT_ERROR = 3  # the exit status of a worker on which gunicorn ends, instead of starting another worker

_LIBRARY_BYTES = 2**27  # of the engine beside its first model, and what is left unused between models that come and go


def create_memory_budget(settings: ServeSettings) -> MemoryBudget:
    """Open the ledger of a worker that has not loaded a model yet."""
    total = _memory_to_promise(settings) - _LIBRARY_BYTES
    if settings.multi_model:
        total -= settings.seats * settings.slots * STANDING  # models that nobody uses give theirs back
    return MemoryBudget(total, settings.image_memory, settings.slots)


def settle(model: Future[Model], ledger: MemoryBudget, settings: ServeSettings) -> None:
    """End the server if the model is unusable; else promise what the loaded model has left of the memory."""
    error = model.exception()
    if error is None:
        ledger.total = _memory_to_promise(settings) - model.result().card.standing
        LOG.info("%d MB of memory are there for requests", ledger.total // 2**20)
        return
    if isinstance(error, ClientError):
        LOG.error("ClientError: %s", error)
    else:
        LOG.error("the model cannot be loaded", exc_info=error)
    os._exit(_BOOT_ERROR)  # sys.exit would end this thread only


def _memory_to_promise(settings: ServeSettings) -> int:
    """Return this process's share of the memory less what it weighs; a twentieth is left for the unforeseen."""
    return max(0, settings.memory * 19 // 20 // settings.workers - weigh())
