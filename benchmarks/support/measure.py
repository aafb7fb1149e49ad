"""Shared parts of the benchmarks: interleaved rounds, medians, ratios, and child processes."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Hashable, Iterable, Mapping
from pathlib import Path
from typing import TypeVar

ROOT = Path(__file__).resolve().parents[2]

Name = TypeVar("Name", bound=Hashable)
Result = TypeVar("Result")


def interleave(variants: Mapping[Name, Callable[[], Result]], rounds: int, warmup: int = 0) -> dict[Name, list[Result]]:
    """Run every variant once per round, and return the results without those of the warm-up rounds."""
    results: dict[Name, list[Result]] = {name: [] for name in variants}
    for number in range(warmup + rounds):
        for name, run in variants.items():
            result = run()
            if number >= warmup:
                results[name].append(result)
    return results


def timed(call: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> Callable[[], float]:
    """Return a function that calls `call` and returns the seconds of the call."""

    def run() -> float:
        start = clock()
        call()
        return clock() - start

    return run


def medians(results: Mapping[Name, Iterable[float]]) -> dict[Name, float]:
    """Return the median of each variant."""
    return {name: statistics.median(values) for name, values in results.items()}


def print_ratios(values: Mapping[str, float], unit: str, baseline: str) -> None:
    """Print the value of each variant, and its ratio to the value of the baseline."""
    width = max(map(len, values))
    for name, value in values.items():
        print(f"{name:{width}}  {value:9.3f} {unit}  {value / values[baseline]:6.2f} × {baseline}")


def run_python(arguments: list[str], environment: Mapping[str, str] | None = None) -> str:
    """Run Python in a child process and return the last line of its output; exit with its error if it fails."""
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{arguments[:2]} failed:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    return done.stdout.strip().splitlines()[-1]
