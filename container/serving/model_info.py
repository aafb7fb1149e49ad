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


def describe_model(info: ModelInfo, settings: ServeSettings) -> dict[str, Any]:
    """Describe the model of a single-model endpoint."""
    windows = info.planner.windows
    known = {entry["id"]: entry for entry in describe_classes(info.classes)}
    return {
        "model": {key: info.network[key] for key in ("algorithm", "backbone") if key in info.network},
        **({"windows": dataclasses.asdict(windows)} if windows else {}),
        **({"image_range": list(info.image_range)} if info.image_range else {}),
        "num_classes": info.num_classes,
        "classes": [known.get(label, {"id": label}) for label in range(info.num_classes)],
        "engine": settings.engine,
        "precision": info.precision,
        **_describe_server(settings),
    }


def describe_models(names: Iterable[str], settings: ServeSettings) -> dict[str, Any]:
    """Describe a multi-model endpoint, whose models can have different classes."""
    return {"models": list(names), "engine": settings.engine, **_describe_server(settings)}


def describe_execution(settings: ServeSettings, max_concurrent_requests: int) -> dict[str, int | str]:
    """Return the parameters for batch transform, in which concurrency times payload must not exceed 100 MB."""
    concurrency = settings.workers * max_concurrent_requests
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
