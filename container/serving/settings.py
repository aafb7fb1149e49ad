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

METRICS_DIR_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"  # of prometheus-client; gunicorn_conf sets it

T = TypeVar("T", bound=str)


@dataclasses.dataclass(frozen=True)
class ServeSettings:
    """Settings of the server."""

    model_dir: Path
    port: int = 8080
    workers: int = 1
    timeout: int = 60  # seconds until the response is sent: SageMaker AI waits at most 60 s
    queue_seconds: int = 20  # maximum total wait of a request for the queue, memory, and an inference slot
    log_level: str = "info"
    log_format: str = "json"
    max_body: int = 100 * 2**20
    max_pixels: int = 40_000_000
    max_response: int | None = None
    memory: int = 2**33  # bytes that this container can use
    image_memory: int | None = None  # bytes that one image can use; None: no limit except the budget
    engine: str = "openvino"
    gpus: tuple[str, ...] = ()  # GPUs of the MXNet engine, as entries of CUDA_VISIBLE_DEVICES
    precision: str = "auto"
    metrics: bool = False
    metrics_dir: Path | None = None  # in which several workers share their metrics
    ui: bool = False  # the web page at /
    exif_orientation: Literal["ignore", "apply"] = "ignore"
    multi_model: bool = False
    model_memory: int | None = None  # bytes that all loaded models of a multi-model endpoint can use

    @property
    def threads(self) -> int:
        """Inference threads per process: its share of the CPUs of the container."""
        return max(1, cpu_count() // self.workers)

    @property
    def max_concurrent_inferences(self) -> int:
        """Concurrent inferences per process: one per four cores.

        Two inferences on two cores increased the latency twofold, and not the images/s. More cores were not measured.
        """
        return 1 if self.engine == "mxnet" else max(1, self.threads // 4)

    @property
    def max_concurrent_requests(self) -> int:
        """Concurrent requests per process: during inference, the next image is decoded."""
        return self.max_concurrent_inferences + 1

    @property
    def resolved_variables(self) -> dict[str, str]:
        """Environment variables with which `read` returns the same engine, GPUs, and workers without the driver."""
        resolved = {"SERVE_ENGINE": self.engine, "SAGEMAKER_MODEL_SERVER_WORKERS": str(self.workers)}
        return resolved | ({"CUDA_VISIBLE_DEVICES": ",".join(self.gpus)} if self.gpus else {})

    @classmethod
    def read(cls, variables: Mapping[str, str] = os.environ) -> ServeSettings:
        """Read the settings; raises ClientError with the name of an invalid variable and its valid values."""
        integer = Integers(variables)
        engine, gpus = _choose_engine(variables)
        timeout = integer.read("SAGEMAKER_MODEL_SERVER_TIMEOUT", "MODEL_SERVER_TIMEOUT", default=60)
        multi_model = variables.get("SAGEMAKER_MULTI_MODEL", "").lower() == "true"
        metrics_dir = variables.get(METRICS_DIR_VARIABLE)
        return cls(
            model_dir=base_dir(variables) / "model",
            port=integer.read("SAGEMAKER_BIND_TO_PORT", default=8080),
            workers=1  # all routes must reach the one process with the loaded models
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
            metrics_dir=Path(metrics_dir) if metrics_dir else None,
            ui=_read_ui(variables, multi_model),
            exif_orientation=_choose(variables, "EXIF_ORIENTATION", EXIF_ORIENTATIONS),
            multi_model=multi_model,
            image_memory=_megabytes(integer, "IMAGE_MEMORY_MB"),
            model_memory=_megabytes(integer, "MODEL_MEMORY_MB"),
        )


def _megabytes(integer: Integers, name: str) -> int | None:
    """Return the value of a variable in megabytes as bytes, or None if it is not set."""
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
    """Return the value of a variable, which must be one of `choices`, or the first choice if it is not set."""
    value = variables.get(name, "").strip().lower() or choices[0]
    for choice in choices:
        if value == choice:
            return choice
    raise ClientError(f"the environment variable {name} must be one of {', '.join(choices)}, not {value!r}")


def _read_ui(variables: Mapping[str, str], multi_model: bool) -> bool:
    enabled = _choose(variables, "SERVE_UI", ("0", "1")) == "1"
    if enabled and multi_model:
        raise ClientError("SERVE_UI=1 does not support SAGEMAKER_MULTI_MODEL=true. Unset one of the two.")
    return enabled


def _log_level(text: str) -> str:
    """Return the gunicorn name of a log level, which is given as its Python number or name."""
    name = logging.getLevelName(int(text)) if text.strip().isdecimal() else text.strip().upper()
    return str(name).lower() if name in ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL") else "info"
