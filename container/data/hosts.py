"""The hosts of a job as the other packages see them; `container.mx.cluster` implements several hosts.

A collective method is one that every host calls at the same point; with one host it costs nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from container.arrays import Float32Array
from container.data.batches import Batch


class Hosts:
    """The only host of its job.

    `stop` ends the job once it is set: at the same point on every host, which is why a signal is not it. `asked` is set
    as soon as this host knows that the job is to stop.
    """

    store: Any = None  # MXNet's key-value store that sums over hosts; None where there is one host

    def __init__(self, stop: threading.Event, names: Sequence[str] = ("algo-1",), name: str = "algo-1") -> None:
        self.stop = self.asked = stop
        self.names = sorted(set(names))
        self.name = name
        self.index = self.names.index(name)

    @property
    def count(self) -> int:
        """How many hosts there are."""
        return len(self.names)

    @property
    def first(self) -> bool:
        """Whether this host is the one that logs figures, and writes report, checkpoints and model."""
        return not self.index

    def total(self, *numbers: int) -> list[int]:
        """Sum each of `numbers`, integers from 0 to 2**63 − 1, over all hosts. Collective."""
        return list(numbers)

    def collect(self, *numbers: int) -> list[list[int]]:
        """Return the numbers of every host, by its index. Collective."""
        rows = [[0] * len(numbers) for _ in self.names]
        rows[self.index] = list(numbers)
        flat = self.total(*(number for row in rows for number in row))
        width = max(1, len(numbers))
        return [flat[start : start + width] for start in range(0, len(flat), width)]

    def send(self, data: Callable[[], bytes]) -> bytes:
        """Return the first host's `data`, which no other host has to have. Collective."""
        return data()

    def decide(self, wanted: bool) -> bool:
        """Return what the first host wants. Collective."""
        return bool(self.total(wanted and self.first)[0])

    def agree(self) -> bool:
        """Say whether the job is to stop, and set `stop` then on every host. Collective."""
        return self.stop.is_set()

    def in_step(self, batches: Iterator[Batch], crop: int) -> Iterator[Batch]:
        """Yield as many batches here as on every other host: without images where this one has no more. Collective."""
        return batches

    def sum(self, values: Float32Array) -> Float32Array:
        """Sum an array over all hosts. Collective."""
        return values

    def add(self, arrays: list[Any]) -> list[Any]:
        """Sum arrays of one number, MXNet's, over devices and hosts, without waiting for them. Collective."""
        return arrays
