"""Sharding: the samples of a channel that belong to this host."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from container.arrays import Int64Array
from container.data.samples import Sample

_SHARDS = 2**32 - 2  # stands for the epoch in the seed of a shard's order


@dataclasses.dataclass(frozen=True)
class Shard:
    """This host's part, the `index`-th of `count`, of every batch of a channel.

    `sharded`: the channel holds this host's samples alone; then the parts are of the hosts that have samples, and a
    training pass over files has `passes` batches. A host without any has no part: `index` is None.
    """

    index: int | None = 0
    count: int = 1
    sharded: bool = False
    passes: int = 0

    @property
    def alone(self) -> bool:
        """Whether this is all of the channel."""
        return self.count == 1 and not self.sharded

    def bounds(self, size: int) -> tuple[int, int]:
        """Return where this host's part of a batch of `size` samples begins and ends; parts differ by one at most."""
        if self.index is None:
            return 0, 0
        return size * self.index // self.count, size * (self.index + 1) // self.count

    def size(self, batch_size: int) -> int:
        """Return how many samples of a batch are this host's, when it takes them from its own shard."""
        start, end = self.bounds(batch_size)
        return end - start if self.sharded else batch_size

    def part(self, batch_size: int, number: int, group: list[Sample]) -> tuple[int, list[Sample]]:
        """Take this host's part of a group whose first sample is `number` in its pass; returns its first's number too.

        A shard's group is such a part: it gets the numbers that it would have in a batch of all hosts.
        """
        if self.sharded:
            start, end = self.bounds(batch_size)
            return number // max(1, end - start) * batch_size + start, group
        start, end = self.bounds(len(group))
        return number + start, group[start:end]

    def share(self, samples: Iterable[Sample]) -> Iterator[Sample]:
        """Take this host's samples of a pass that is not made in batches: every `count`-th, all of a shard."""
        return iter(samples) if self.sharded else itertools.islice(samples, self.index, None, self.count)

    def share_size(self, count: int) -> int:
        """Return how many of so many samples `share` takes."""
        return count if self.sharded else len(range(self.index or 0, count, self.count))

    def shard_groups(
        self, samples: Sequence[Sample], batch_size: int, epoch: int, seed: int | None
    ) -> Iterator[list[Sample]]:
        """Yield this host's parts of the batches of training pass `epoch`.

        The shard is gone through again and again, in an order that `seed` shuffles each time, whatever the passes of
        all hosts together: so a short shard's samples come oftener than a long one's, and within each as often.
        """
        size = self.size(batch_size)
        orders: dict[int, Int64Array] = {}
        for group in range(self.passes if size and samples else 0):
            chosen = []
            for at in range((epoch * self.passes + group) * size, (epoch * self.passes + group + 1) * size):
                turn, place = divmod(at, len(samples))
                if turn not in orders:
                    orders = {turn: self._order(len(samples), turn, seed)}
                chosen.append(samples[orders[turn][place]])
            yield chosen

    def _order(self, count: int, turn: int, seed: int | None) -> Int64Array:
        if seed is None:
            return np.arange(count)
        return np.random.default_rng((seed, _SHARDS, self.index or 0, turn)).permutation(count)


ALL = Shard()


def divide_shards(counts: Sequence[int | None], index: int, batch_size: int) -> Shard:
    """Return this host's division of a sharded channel of which host i has `counts[i]` samples, None for a stream.

    The longest shard decides how many batches a training pass has.
    """
    having = [host for host, count in enumerate(counts) if count != 0]
    parts = [Shard(place, len(having), True) for place in range(len(having))]
    passes = [
        -(-(counts[host] or 0) // max(1, part.size(batch_size))) for host, part in zip(having, parts, strict=True)
    ]
    own = having.index(index) if index in having else None
    return Shard(own, max(1, len(having)), True, max(passes, default=0))
