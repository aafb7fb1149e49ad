"""Engine selection: OpenVINO on CPUs, MXNet on GPUs."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from typing import Protocol

import numpy as np

from container.artifact import model_directory
from container.artifact.check import CHECK, Check, draw_picture, fingerprint, read_check, unusable
from container.engines.protocol import Engine
from container.errors import ClientError
from container.geometry.tiles import STRIDE

_REPEATED = 1e-3  # how far probabilities of the same image can differ

LOG = logging.getLogger("gunicorn.error")  # the server's own log


class _UnrepeatableError(ClientError):
    """The processor returns different results for the same image in a precision."""


class EngineChoice(Protocol):
    """What an engine is asked for."""

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
        """Return how many threads compute."""
        ...

    @property
    def max_concurrent_inferences(self) -> int:
        """Return how many images are processed at the same time."""
        ...


def load_engine(model_dir: Path, choice: EngineChoice) -> Engine:
    """Load the model in `model_dir` and answer once; raises ClientError that says what to do when it cannot be.

    So it does when the model does not answer as its job says that it does. On CPUs the precision `auto` takes int8
    where the job has approved it, as long as this processor gets the job's answer with it.
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
            LOG.warning("SERVE_PRECISION=auto does without int8: %s", error)
    try:
        return _open_openvino(model_dir, choice, choice.precision, check)
    except _UnrepeatableError as error:
        if choice.precision != "auto":
            raise
        LOG.warning("SERVE_PRECISION=auto selects float32: %s", error)
        return _open_openvino(model_dir, choice, "float32", check)


def _open_openvino(model_dir: Path, choice: EngineChoice, precision: str, check: Check | None) -> Engine:
    from container.engines.conversion import prepare_graph
    from container.engines.openvino import OpenVinoEngine

    with tempfile.TemporaryDirectory() as scratch:  # the model directory is read-only
        graph = prepare_graph(model_dir, precision, Path(scratch))
        engine = OpenVinoEngine(graph, precision, threads=choice.threads, slots=choice.max_concurrent_inferences)
    _warm(engine, model_dir, check)
    return engine


def _is_approved(model_dir: Path, check: Check) -> bool:
    """Say whether the archive's int8 graph is the one that its job has approved."""
    graph = model_dir / model_directory.INT8_GRAPH
    if not check.int8:
        return False
    if graph.is_file() and fingerprint(graph) == check.int8:
        return True
    LOG.warning("SERVE_PRECISION=auto does without int8: %s is not the graph that its job has approved", graph)
    return False


def _check_weights(model_dir: Path, check: Check) -> None:
    if fingerprint(model_dir / model_directory.BEST_WEIGHTS) != check.weights:
        raise ClientError(
            f"{model_dir}: {model_directory.BEST_WEIGHTS} is not the file that {CHECK} was written for: unpack one "
            "job's "
            f"model.tar.gz anew; who means to serve other weights removes {CHECK} and {model_directory.GRAPH}"
        )


def _warm(engine: Engine, model_dir: Path, check: Check | None) -> None:
    """Let the engine answer, and see whether its answers are usable and those of its job."""
    engine.warm()
    picture = check.picture if check else draw_picture()
    narrow = picture[:, :STRIDE]
    before = engine.probabilities(narrow)
    mask, probabilities = engine.mask(picture), engine.probabilities(picture)
    if fault := unusable(probabilities):
        raise ClientError(
            f"{model_dir}: the model answers with {fault}: its weights are damaged, or of a training that diverged; "
            "unpack the job's model.tar.gz anew, or train with a lower learning_rate"
        )
    if not np.allclose(engine.probabilities(narrow), before, atol=_REPEATED):
        raise _UnrepeatableError(
            f"this processor returns different results for the same narrow image in {engine.precision}: set "
            "SERVE_PRECISION=float32"
        )
    if check and (fault := check.fault(mask, probabilities, engine.precision)):
        raise ClientError(
            f"{model_dir}: the model does not answer as its job says in {CHECK} ({fault}): its files are of different "
            f"jobs; unpack one model.tar.gz anew; who has changed the graph on purpose removes {CHECK}"
        )
