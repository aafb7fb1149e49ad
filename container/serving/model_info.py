"""Model information that `GET /` returns."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from container.artifact.classes import describe_classes
from container.codecs.response_formats import ENCODERS
from container.engines.tta import WAYS
from container.serving.models import ModelInfo
from container.serving.settings import ServeSettings


def describe_model(card: ModelInfo, settings: ServeSettings) -> dict[str, Any]:
    """Describe the model of an ordinary endpoint."""
    windows = card.planner.windows
    named = {entry["id"]: entry for entry in describe_classes(card.classes)}
    return {
        "model": {key: card.network[key] for key in ("algorithm", "backbone") if key in card.network},
        **({"windows": dataclasses.asdict(windows)} if windows else {}),
        **({"image_range": list(card.image_range)} if card.image_range else {}),
        "num_classes": card.num_classes,
        "classes": [named.get(label, {"id": label}) for label in range(card.num_classes)],
        "engine": settings.engine,
        "precision": card.precision,
        **_describe_server(settings),
    }


def describe_models(names: Iterable[str], settings: ServeSettings) -> dict[str, Any]:
    """Describe a multi-model endpoint, whose models may have any classes."""
    return {"models": list(names), "engine": settings.engine, **_describe_server(settings)}


def describe_execution(settings: ServeSettings, seats: int) -> dict[str, int | str]:
    """Advise batch transform, which wants concurrency times payload to stay within 100 MB."""
    concurrency = settings.workers * seats
    return {
        "MaxConcurrentTransforms": concurrency,
        "BatchStrategy": "SINGLE_RECORD",
        "MaxPayloadInMB": max(1, min(settings.max_body // 2**20, 100 // concurrency)),
    }


def _describe_server(settings: ServeSettings) -> dict[str, Any]:
    return {
        "accept": list(ENCODERS),
        "tta": list(WAYS),
        "limits": {
            "body_bytes": settings.max_body,
            "pixels": settings.max_pixels,
            "response_bytes": settings.max_response,
            "seconds": settings.timeout,
        },
    }
