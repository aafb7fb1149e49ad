"""Prometheus metrics over all workers."""

from __future__ import annotations

import os
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
    multiprocess,
)

from container.serving.memory_budget import KINDS, MemoryBudget
from container.serving.models import ModelInfo
from container.serving.requests.log import PHASES
from container.serving.requests.queue import RequestQueue

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """What has been counted and is measured."""

    def __init__(self, gate: RequestQueue, ledger: MemoryBudget) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a time for each total, which nobody asks for
        self._gate, self._ledger = gate, ledger
        self._registry = registry = CollectorRegistry()
        self._requests = Counter("requests", "Requests answered, by HTTP status.", ["status"], registry=registry)
        self._phases = Histogram(
            "phase_seconds", "Time in each phase of a request.", ["phase"], buckets=_SECONDS, registry=registry
        )
        self._duration = Histogram(
            "request_seconds", "Time from headers to the last byte sent.", buckets=_SECONDS, registry=registry
        )

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(name, text, labels, multiprocess_mode="livesum", registry=registry)

        self._waiting = gauge("requests_waiting", "Requests that wait for a seat.")
        self._working = gauge("requests_in_flight", "Requests that have a seat.")
        self._taken = gauge("memory_taken_bytes", "Memory promised to requests and models, by what for.", "kind")
        self._most = gauge("memory_most_taken_bytes", "Memory promised at once at most.")
        self._total = gauge("memory_total_bytes", "Memory that can be promised.")
        labels = ["model", "engine", "precision"]
        self._model = Gauge("model_info", "What answers.", labels, multiprocess_mode="livemax", registry=registry)

    def add(self, facts: dict[str, Any]) -> None:
        """Count one finished request."""
        self._requests.labels(str(facts["status"])).inc()
        self._duration.observe(facts["total_ms"] / 1000)
        for phase in PHASES:
            if (milliseconds := facts.get(f"{phase}_ms")) is not None:
                self._phases.labels(phase).observe(milliseconds / 1000)

    def describe(self, name: str, engine: str, card: ModelInfo) -> None:
        """Name the model that answers."""
        self._model.labels(name, engine, card.precision).set(1)

    def measure(self) -> None:
        """Write down what is the case now: the other workers are asked for it too."""
        self._waiting.set(self._gate.waiting)
        self._working.set(self._gate.working)
        self._total.set(self._ledger.total)
        self._most.set(self._ledger.most_taken)
        for kind in KINDS:
            self._taken.labels(kind).set(self._ledger.taken[kind])

    def render(self) -> bytes:
        """Return all workers' totals in Prometheus' text format."""
        self.measure()
        registry = self._registry
        if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
            registry = CollectorRegistry()
            multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)
