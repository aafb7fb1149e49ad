"""Hosts of a job: one object with the same methods for a single host and for distributed training.

Every host must call a collective method at the same point. On a single host, collective methods return immediately.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from container.arrays import Float32Array
from container.data.batches import Batch
from container.environment import Environment
from container.errors import ClientError, JobError
from container.hyperparameters import Hyperparameters


class Hosts:
    """The only host of a job; `container.cluster.cluster` implements several hosts.

    All hosts set `stop` at the same point, so training ends after the same iteration on each of them. `stop_requested`
    is set as soon as this host must stop.
    """

    store: Any = None  # MXNet key-value store that sums over hosts; None for a single host

    def __init__(self, stop: threading.Event, names: Sequence[str] = ("algo-1",), name: str = "algo-1") -> None:
        self.stop = self.stop_requested = stop
        self.names = sorted(set(names))
        self.name = name
        self.index = self.names.index(name)

    @property
    def count(self) -> int:
        """Number of hosts."""
        return len(self.names)

    @property
    def first(self) -> bool:
        """Whether this host logs the metrics, and writes the report, checkpoints, and model."""
        return not self.index

    def describe_devices(self, devices: Sequence[object]) -> str:
        """Return the devices of the job for the report."""
        own = ", ".join(map(str, devices))
        return own if self.count == 1 else f"{own} on each of {', '.join(self.names)}"

    def sum_integers(self, *numbers: int) -> list[int]:
        """Sum each of `numbers`, integers from 0 to 2**63 − 1, over all hosts. Collective."""
        return list(numbers)

    def gather(self, *numbers: int) -> list[list[int]]:
        """Return the numbers of every host, in the order of `names`. Collective."""
        rows = [[0] * len(numbers) for _ in self.names]
        rows[self.index] = list(numbers)
        flat = self.sum_integers(*(number for row in rows for number in row))
        width = max(1, len(numbers))
        return [flat[start : start + width] for start in range(0, len(flat), width)]

    def broadcast(self, data: Callable[[], bytes]) -> bytes:
        """Return the result of `data` on the first host. Collective."""
        return data()

    def broadcast_integer(self, number: int) -> int:
        """Return the number of the first host, from 0 to 2**63 − 1. Collective."""
        return self.sum_integers(number if self.first else 0)[0]

    def agree_to_stop(self) -> bool:
        """Return whether any host must stop, and set `stop` on every host if so. Collective."""
        return self.stop.is_set()

    def synchronize_batches(self, batches: Iterator[Batch], crop: int) -> Iterator[Batch]:
        """Yield as many batches as every other host, empty ones if this host has no more. Collective."""
        return batches

    def sum_array(self, values: Float32Array) -> Float32Array:
        """Sum an array over all hosts. Collective."""
        return values

    def sum_losses(self, losses: list[Any]) -> list[Any]:
        """Sum the losses of the devices over all hosts, without waiting for them. Collective."""
        return losses


@contextlib.contextmanager
def join_hosts(
    environment: Environment, job: Hyperparameters, stop: threading.Event, fail: Callable[[JobError], None]
) -> Iterator[Hosts]:
    """Connect to the other hosts of the job, if it has any, for the duration of the block.

    `stop` is set when this host must stop. `fail` reports the failure of another host, before this process exits.
    """
    hosts = environment.hosts
    if len(hosts) == 1:
        yield Hosts(stop, hosts, environment.current_host)
        return
    if job.mini_batch_size < len(hosts):
        raise ClientError(
            f"mini_batch_size is {job.mini_batch_size}, which is less than the number of instances ({len(hosts)}). "
            "Increase mini_batch_size or use fewer instances, so that each instance trains on at least one image."
        )
    from container.cluster.cluster import Cluster

    with Cluster(environment, job, stop, fail).joined() as cluster:
        yield cluster
