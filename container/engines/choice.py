"""Which engine answers: OpenVINO on CPUs, MXNet on GPUs; each is imported only when it is chosen."""

from __future__ import annotations

import tempfile
from pathlib import Path

from container.engines.protocol import Engine
from container.serve_settings import ServeSettings


def open_engine(model_dir: Path, settings: ServeSettings) -> Engine:
    """Load the model in `model_dir` and answer once; raises ClientError that says what to do when it cannot be."""
    engine: Engine
    if settings.engine == "mxnet":
        from container.engines.mxnet import MXNetEngine

        engine = MXNetEngine(model_dir, settings.precision)
    else:
        from container.engines.openvino import OpenVinoEngine, prepare_graph

        with tempfile.TemporaryDirectory() as scratch:  # the model directory is read-only
            graph = prepare_graph(model_dir, settings.precision, Path(scratch))
            engine = OpenVinoEngine(graph, settings.precision, threads=settings.threads, slots=settings.slots)
    engine.warm()
    return engine
