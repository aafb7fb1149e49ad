"""The ONNX model of model artifacts: existing, or exported by a child process."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from container.artifact import disk, model_directory
from container.errors import ClientError, last_line


def conversion_memory(weights: int) -> int:
    """Return how many bytes the process takes that makes a graph of so many bytes of weights."""
    return 2**28 + 6 * weights


def prepare_graph(model_dir: Path, precision: str, scratch: Path) -> Path:
    """Return the path of the model's graph; for an archive without one, a child process writes it into `scratch`.

    Raises ClientError when the archive has no int8 graph but `precision` asks for it, or holds no usable model.
    """
    if precision == "int8":
        graph = model_dir / model_directory.INT8_GRAPH
        if not graph.is_file():
            raise ClientError(
                f"SERVE_PRECISION=int8: {graph} is missing; train with _quantize=True, quantize the archive by "
                "python -m container.engines.quantize, or serve with SERVE_PRECISION=auto"
            )
        return _readable(graph)
    if (model_dir / model_directory.GRAPH).is_file():
        return _readable(model_dir / model_directory.GRAPH)
    command = [sys.executable, "-m", "container.mx.convert", str(model_dir), str(scratch / model_directory.GRAPH)]
    child = subprocess.run(command, cwd=Path(__file__).parents[2], stderr=subprocess.PIPE, text=True, check=False)
    if child.returncode:
        reason = _why_not_converted(child, model_dir / model_directory.BEST_WEIGHTS, scratch)
        raise ClientError(f"{model_dir} could not be converted to {model_directory.GRAPH}: {reason}")
    return scratch / model_directory.GRAPH


def _readable(graph: Path) -> Path:
    """Return the path; raises OSError if the file cannot be read, which OpenVINO reports as damaged."""
    with graph.open("rb") as file:
        file.read(1)
    return graph


def _why_not_converted(child: subprocess.CompletedProcess[str], weights: Path, scratch: Path) -> str:
    """Say why the child that converts has failed, and what to do about it where it is for want of memory or room."""
    size = weights.stat().st_size if weights.is_file() else 0
    instead = f"an archive that holds {model_directory.GRAPH} (python -m container.mx.convert)"
    if child.returncode == -signal.SIGKILL:
        megabytes = conversion_memory(size) // 2**20
        return (
            f"the process was killed, most likely for want of memory: it takes {megabytes} MB; give it more memory, "
            f"or {instead}"
        )
    reason = last_line(child.stderr) or f"exit status {child.returncode}"
    free = disk.free_bytes(scratch)
    if disk.FULL in reason and free is not None:  # whose remedy is for a job; the graph is as large as the weights
        return (
            f"{scratch.parent} has room for {free // 2**20} MB, and it takes about {size // 2**20}: mount a larger one "
            f"(docker run --tmpfs /tmp), or give it {instead}"
        )
    return reason.removeprefix("ClientError: ")
