"""The ONNX model of model artifacts: existing, or exported by a child process."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from container.artifact import disk, model_directory
from container.errors import ClientError, last_line


def conversion_memory(weights: int) -> int:
    """Return the bytes of memory that the process needs to export an ONNX model from `weights` bytes of weights."""
    return 2**28 + 6 * weights


def prepare_graph(model_dir: Path, precision: str, scratch: Path) -> Path:
    """Return the path of the ONNX model; if it does not exist, a child process writes it into `scratch`.

    Raises ClientError if `precision` is int8 and there is no int8 model, or if the model artifacts are unusable.
    """
    if precision == "int8":
        graph = model_dir / model_directory.INT8_GRAPH
        if not graph.is_file():
            raise ClientError(
                f"SERVE_PRECISION=int8 needs {graph}, which does not exist. Do one of the following: (1) Train with "
                "_quantize=True. (2) Run python -m container.engines.quantize. (3) Set SERVE_PRECISION=auto."
            )
        return _readable(graph)
    if (model_dir / model_directory.GRAPH).is_file():
        return _readable(model_dir / model_directory.GRAPH)
    command = [sys.executable, "-m", "container.mx.convert", str(model_dir), str(scratch / model_directory.GRAPH)]
    child = subprocess.run(command, cwd=Path(__file__).parents[2], stderr=subprocess.PIPE, text=True, check=False)
    if child.returncode:
        reason = _explain_failure(child, model_dir / model_directory.BEST_WEIGHTS, scratch)
        raise ClientError(f"{model_directory.GRAPH} cannot be exported from {model_dir}: {reason}")
    return scratch / model_directory.GRAPH


def _readable(graph: Path) -> Path:
    """Return the path; raises OSError if the file cannot be read, which OpenVINO reports as a corrupt file."""
    with graph.open("rb") as file:
        file.read(1)
    return graph


def _explain_failure(child: subprocess.CompletedProcess[str], weights: Path, scratch: Path) -> str:
    """Return why the child process failed, with the fix if memory or disk space was not enough."""
    size = weights.stat().st_size if weights.is_file() else 0
    instead = f"use model artifacts that contain {model_directory.GRAPH} (python -m container.mx.convert)"
    if child.returncode == -signal.SIGKILL:
        megabytes = conversion_memory(size) // 2**20
        return (
            f"the export process was killed, probably because it needs {megabytes} MB of memory. Use more memory, or "
            f"{instead}."
        )
    reason = last_line(child.stderr) or f"exit status {child.returncode}"
    free = disk.free_bytes(scratch)
    if disk.FULL in reason and free is not None:  # its fix is for a job; the ONNX model is as large as the weights
        return (
            f"{scratch.parent} has {free // 2**20} MB of free space, and it needs about {size // 2**20}. Mount a "
            f"larger file system (docker run --tmpfs /tmp), or {instead}."
        )
    return reason.removeprefix("ClientError: ")
