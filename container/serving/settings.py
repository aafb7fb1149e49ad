"""Environment variables of the server."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, TypeVar

from container.environment import Integers, base_dir, cpu_count, memory_limit
from container.errors import ClientError
from container.mx.gpus import select_gpus, visible_gpus

LOG = logging.getLogger(__name__)

ENGINES = ("auto", "openvino", "mxnet")
PRECISIONS = ("auto", "float32", "bfloat16", "int8", "float16")
LOG_FORMATS = ("json", "text")
EXIF_ORIENTATIONS: tuple[Literal["ignore", "apply"], ...] = ("ignore", "apply")

T = TypeVar("T", bound=str)


@dataclasses.dataclass(frozen=True)
class ServeSettings:
    """Everything a serving container is told."""

    model_dir: Path
    port: int = 8080
    workers: int = 1
    timeout: int = 60  # seconds within which a request is answered or refused: the platform waits no longer
    queue_seconds: int = 20  # a request waits at most so long for a seat, memory and a lane together
    log_level: str = "info"
    log_format: str = "json"
    max_body: int = 100 * 2**20
    max_pixels: int = 40_000_000
    max_response: int | None = None
    memory: int = 2**33  # bytes that this container may use
    image_memory: int | None = None  # bytes that one image may take; None: whatever the ledger has
    engine: str = "openvino"
    gpus: tuple[str, ...] = ()  # GPUs of the MXNet engine, as entries of CUDA_VISIBLE_DEVICES
    precision: str = "auto"
    metrics: bool = False
    ui: bool = False  # a page at / on which people try the model
    exif_orientation: Literal["ignore", "apply"] = "ignore"
    multi_model: bool = False
    model_memory: int | None = None  # bytes that the loaded models of a multi-model endpoint may take, likewise

    @property
    def threads(self) -> int:
        """How many threads compute in each process: its share of the CPUs granted."""
        return max(1, cpu_count() // self.workers)

    @property
    def slots(self) -> int:
        """How many images are computed at the same time in each process.

        One per four cores. Splitting two cores gave no more images/s, and twice the time of a request; more cores than
        two have not been measured.
        """
        return 1 if self.engine == "mxnet" else max(1, self.threads // 4)

    @property
    def seats(self) -> int:
        """How many requests are worked on in each process: the next image is decoded while one is computed."""
        return self.slots + 1

    @property
    def resolved_variables(self) -> dict[str, str]:
        """Environment variables with which `read` returns the same engine, GPUs, and workers without the driver."""
        resolved = {"SERVE_ENGINE": self.engine, "SAGEMAKER_MODEL_SERVER_WORKERS": str(self.workers)}
        return resolved | ({"CUDA_VISIBLE_DEVICES": ",".join(self.gpus)} if self.gpus else {})

    @classmethod
    def read(cls, variables: Mapping[str, str] = os.environ) -> ServeSettings:
        """Read the settings; raises ClientError naming the variable whose value cannot be used, and what can."""
        integer = Integers(variables)
        engine, gpus = _choose_engine(variables)
        timeout = integer.read("SAGEMAKER_MODEL_SERVER_TIMEOUT", "MODEL_SERVER_TIMEOUT", default=60)
        multi_model = variables.get("SAGEMAKER_MULTI_MODEL", "").lower() == "true"
        return cls(
            model_dir=base_dir(variables) / "model",
            port=integer.read("SAGEMAKER_BIND_TO_PORT", default=8080),
            workers=1  # routes that load and unload models must reach the one process that holds them
            if multi_model
            else integer.read("SAGEMAKER_MODEL_SERVER_WORKERS", "MODEL_SERVER_WORKERS", default=max(1, len(gpus))),
            timeout=timeout,
            queue_seconds=integer.read("QUEUE_SECONDS", default=max(1, timeout // 3)),
            log_level=_log_level(variables.get("SAGEMAKER_CONTAINER_LOG_LEVEL", "20")),
            log_format=_choose(variables, "LOG_FORMAT", LOG_FORMATS),
            max_body=integer.read("MAX_CONTENT_LENGTH", default=100 * 2**20),
            max_pixels=integer.read("MAX_PIXELS", default=40_000_000),
            max_response=integer.read("MAX_RESPONSE_BYTES", default=0) or None,
            memory=memory_limit(),
            engine=engine,
            gpus=gpus,
            precision=_choose(variables, "SERVE_PRECISION", PRECISIONS),
            metrics=_choose(variables, "SERVE_METRICS", ("0", "1")) == "1",
            ui=_read_ui(variables, multi_model),
            exif_orientation=_choose(variables, "EXIF_ORIENTATION", EXIF_ORIENTATIONS),
            multi_model=multi_model,
            image_memory=_megabytes(integer, "IMAGE_MEMORY_MB"),
            model_memory=_megabytes(integer, "MODEL_MEMORY_MB"),
        )


def _megabytes(integer: Integers, name: str) -> int | None:
    """Return the variable's megabytes in bytes; None when it is not set."""
    megabytes = integer.read(name, default=0)
    return megabytes * 2**20 or None


def _choose_engine(variables: Mapping[str, str]) -> tuple[str, tuple[str, ...]]:
    """Return the engine and the GPUs that it uses; logs a warning if `auto` cannot use all GPUs."""
    engine = _choose(variables, "SERVE_ENGINE", ENGINES)
    visible = visible_gpus(variables.get("CUDA_VISIBLE_DEVICES"))
    if engine != "auto":
        return engine, visible if engine == "mxnet" else ()
    gpus, reason = select_gpus(visible)
    if reason:
        used = f"{len(gpus)} of {len(visible)} GPUs" if gpus else "OpenVINO on the CPUs"
        LOG.warning("SERVE_ENGINE=auto uses %s: %s", used, reason)
    return "mxnet" if gpus else "openvino", gpus


def _choose(variables: Mapping[str, str], name: str, choices: tuple[T, ...]) -> T:
    """Return the variable's value, which must be one of `choices`; the first when it is not set."""
    value = variables.get(name, "").strip().lower() or choices[0]
    for choice in choices:
        if value == choice:
            return choice
    raise ClientError(f"the environment variable {name} must be one of {', '.join(choices)}, not {value!r}")


def _read_ui(variables: Mapping[str, str], multi_model: bool) -> bool:
    wanted = _choose(variables, "SERVE_UI", ("0", "1")) == "1"
    if wanted and multi_model:
        raise ClientError("SERVE_UI=1 shows one model, SAGEMAKER_MULTI_MODEL=true serves many: unset one of the two")
    return wanted


def _log_level(text: str) -> str:
    """Return Python's name for the platform's log level, which is its number or its name."""
    name = logging.getLevelName(int(text)) if text.strip().isdecimal() else text.strip().upper()
    return str(name).lower() if name in ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL") else "info"
