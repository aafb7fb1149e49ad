"""What NVIDIA's driver says of the machine's GPUs; it is asked without loading CUDA into the tests."""

from __future__ import annotations

import subprocess


def ask(field: str) -> list[str]:
    """Return a field of every GPU, as nvidia-smi names and prints it."""
    command = ["nvidia-smi", f"--query-gpu={field}", "--format=csv,noheader,nounits"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()


def compute_capabilities() -> list[float]:
    return [float(text) for text in ask("compute_cap")]


def used_megabytes() -> list[int]:
    return [int(text) for text in ask("memory.used")]
