"""Engine selection: OpenVINO on CPUs, MXNet on GPUs."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from typing import Protocol

import numpy as np

from container.artifact import model_directory
from container.artifact.check import CHECK, Check, create_check_image, describe_invalid_values, fingerprint, read_check
from container.engines.protocol import Engine
from container.errors import ClientError
from container.geometry.tiles import STRIDE

_REPEATED = 1e-3  # maximum difference of the probabilities of the same image

LOG = logging.getLogger("gunicorn.error")  # the log of the server


class _UnrepeatableError(ClientError):
    """The processor returns different results for the same image in a precision."""


class EngineChoice(Protocol):
    """Settings of an engine."""

    @property
    def engine(self) -> str:
        """Return openvino or mxnet."""
        ...

    @property
    def precision(self) -> str:
        """Return one of the precisions, or auto."""
        ...

    @property
    def threads(self) -> int:
        """Return the number of inference threads."""
        ...

    @property
    def max_concurrent_inferences(self) -> int:
        """Return how many images are processed at the same time."""
        ...


def load_engine(model_dir: Path, choice: EngineChoice) -> Engine:
    """Load the model in `model_dir` and run inference once; raises ClientError with the fix if the model is unusable.

    A model whose output differs from check.json is unusable. On CPUs, the precision `auto` uses the int8 model if the
    job approved it and its output on this processor matches check.json.
    """
    check = read_check(model_dir)
    if check:
        _check_weights(model_dir, check)
    if choice.engine == "mxnet":
        from container.engines.mxnet import MXNetEngine

        engine: Engine = MXNetEngine(model_dir, choice.precision)
        _warm(engine, model_dir, check)
        return engine
    if choice.precision == "auto" and check and _is_approved(model_dir, check):
        try:
            return _open_openvino(model_dir, choice, "int8", check)
        except ClientError as error:
            LOG.warning("SERVE_PRECISION=auto does not use the int8 model: %s", error)
    try:
        return _open_openvino(model_dir, choice, choice.precision, check)
    except _UnrepeatableError as error:
        if choice.precision != "auto":
            raise
        LOG.warning("SERVE_PRECISION=auto selects float32: %s", error)
        return _open_openvino(model_dir, choice, "float32", check)


def _open_openvino(model_dir: Path, choice: EngineChoice, precision: str, check: Check | None) -> Engine:
    from container.engines.onnx_model import prepare_model
    from container.engines.openvino import OpenVinoEngine

    with tempfile.TemporaryDirectory() as scratch:  # the model directory is read-only
        graph = prepare_model(model_dir, precision, Path(scratch))
        engine = OpenVinoEngine(graph, precision, threads=choice.threads, slots=choice.max_concurrent_inferences)
    _warm(engine, model_dir, check)
    return engine


def _is_approved(model_dir: Path, check: Check) -> bool:
    """Return whether the int8 model is the one that the job approved."""
    graph = model_dir / model_directory.INT8_GRAPH
    if not check.int8:
        return False
    if graph.is_file() and fingerprint(graph) == check.int8:
        return True
    LOG.warning("SERVE_PRECISION=auto does not use the int8 model: %s is not the one that its job approved.", graph)
    return False


def _check_weights(model_dir: Path, check: Check) -> None:
    if fingerprint(model_dir / model_directory.BEST_WEIGHTS) != check.weights:
        raise ClientError(
            f"{model_dir}: {model_directory.BEST_WEIGHTS} is not the file that {CHECK} was written for. Extract the "
            f"model.tar.gz of one job again. To serve other weights, remove {CHECK} and {model_directory.GRAPH}."
        )


def _warm(engine: Engine, model_dir: Path, check: Check | None) -> None:
    """Run inference, and check that the output is valid, repeatable, and equal to that in check.json."""
    engine.warm()
    image = check.image if check else create_check_image()
    narrow = image[:, :STRIDE]
    before = engine.probabilities(narrow)
    mask, probabilities = engine.mask(image), engine.probabilities(image)
    if invalid := describe_invalid_values(probabilities):
        raise ClientError(
            f"{model_dir}: the model output contains {invalid}. Its weights are corrupt, or its training diverged. "
            "Extract the model.tar.gz of the job again, or train with a lower learning_rate."
        )
    if not np.allclose(engine.probabilities(narrow), before, atol=_REPEATED):
        raise _UnrepeatableError(
            f"this processor returns different results for the same narrow image in {engine.precision}. Set "
            "SERVE_PRECISION=float32."
        )
    if check and (difference := check.describe_difference(mask, probabilities, engine.precision)):
        raise ClientError(
            f"{model_dir}: the model output differs from {CHECK} ({difference}). The files come from different jobs. "
            f"Extract the model.tar.gz of one job again. If you changed the model on purpose, remove {CHECK}."
        )
