"""Prometheus metrics over all workers."""

from __future__ import annotations

from pathlib import Path
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
    """Prometheus counters and gauges; `directory` contains the values of all workers if there are several."""

    def __init__(self, queue: RequestQueue, budget: MemoryBudget, directory: Path | None = None) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a creation time per counter, which is not used
        self._queue, self._budget, self._directory = queue, budget, directory
        self._registry = registry = CollectorRegistry()
        self._requests = Counter("requests", "Completed requests, by HTTP status.", ["status"], registry=registry)
        self._phases = Histogram(
            "phase_seconds", "Time in each phase of a request.", ["phase"], buckets=_SECONDS, registry=registry
        )
        self._duration = Histogram(
            "request_seconds", "Time from headers to the last byte sent.", buckets=_SECONDS, registry=registry
        )

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(name, text, labels, multiprocess_mode="livesum", registry=registry)

        self._waiting = gauge("requests_waiting", "Requests that wait in the queue.")
        self._in_flight = gauge("requests_in_flight", "Requests that are being processed.")
        self._reserved = gauge("memory_taken_bytes", "Memory reserved for requests and models, by kind.", "kind")
        self._peak = gauge("memory_most_taken_bytes", "Maximum of the reserved memory.")
        self._total = gauge("memory_total_bytes", "Memory that can be reserved.")
        labels = ["model", "engine", "precision"]
        self._model = Gauge(
            "model_info",
            "Model that is served.",
            labels,
            multiprocess_mode="livemax",
            registry=registry,
        )

    def add(self, fields: dict[str, Any]) -> None:
        """Count one finished request."""
        self._requests.labels(str(fields["status"])).inc()
        self._duration.observe(fields["total_ms"] / 1000)
        for phase in PHASES:
            if (milliseconds := fields.get(f"{phase}_ms")) is not None:
                self._phases.labels(phase).observe(milliseconds / 1000)

    def set_model(self, name: str, engine: str, info: ModelInfo) -> None:
        """Set the labels of the loaded model."""
        self._model.labels(name, engine, info.precision).set(1)

    def update_gauges(self) -> None:
        """Set the gauges of this worker, which any worker can then return."""
        self._waiting.set(self._queue.waiting)
        self._in_flight.set(self._queue.in_flight)
        self._total.set(self._budget.total)
        self._peak.set(self._budget.peak)
        for kind in KINDS:
            self._reserved.labels(kind).set(self._budget.reserved[kind])

    def render(self) -> bytes:
        """Return the totals of all workers in the Prometheus text format."""
        self.update_gauges()
        registry = self._registry
        if self._directory is not None:
            registry = CollectorRegistry()
            multiprocess.MultiProcessCollector(registry, str(self._directory))  # type: ignore[no-untyped-call]
        return generate_latest(registry)
