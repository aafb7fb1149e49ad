"""How the samples of a channel are divided among hosts."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from container.data.sharding import ALL, Shard, divide_shards


@dataclasses.dataclass(frozen=True)
class Named:
    name: str
    color_map: None = None

    def read(self) -> tuple[bytes, bytes]:
        return b"", b""


def named(names: str) -> list[Named]:
    return [Named(name) for name in names]


def parts(count: int, group: list[Named], number: int = 0) -> list[tuple[int, str]]:
    """Every host's part of a batch: its first sample's number, its samples' names."""
    divided = [Shard(index, count).part(len(group), number, group) for index in range(count)]
    return [(first, "".join(sample.name for sample in part)) for first, part in divided]


def test_each_host_takes_its_part_of_a_batch_with_its_place_in_the_pass() -> None:
    assert parts(2, named("abcd"), 8) == [(8, "ab"), (10, "cd")]
    assert parts(3, named("abcd")) == [(0, "a"), (1, "b"), (2, "cd")]
    assert parts(3, named("ab")) == [(0, ""), (0, "a"), (1, "b")]
    assert ALL.part(4, 4, named("abcd")) == (4, named("abcd"))


@pytest.mark.parametrize("seed", [None, 7])
def test_short_shards_wrap_round_and_each_sample_comes_as_often(seed: int | None) -> None:
    held = [named("abcdefg"), named("xyz"), []]
    divisions = [divide_shards([7, 3, 0], host, 4) for host in range(3)]
    assert [each.passes for each in divisions] == [4, 4, 4]  # the two hosts with samples have two of each four
    passes = [
        [[batch for batch in each.shard_groups(samples, 4, epoch, seed)] for epoch in range(7)]
        for each, samples in zip(divisions, held, strict=True)
    ]
    assert [len(batches) for epochs in passes[:2] for batches in epochs] == [4] * 14
    assert all(len(batch) == 2 for epochs in passes[:2] for batches in epochs for batch in batches)
    assert passes[2] == [[]] * 7
    counts = [
        sorted("".join(sample.name for batches in epochs for batch in batches for sample in batch)) for epochs in passes
    ]
    assert "".join(counts[0]) == "".join(letter * 8 for letter in "abcdefg")  # 7 passes × 4 batches × 2 = 8 × 7
    assert {counts[1].count(letter) for letter in "xyz"} == {18, 19}  # 56 = 18 × 3 + 2
    if seed is None:
        assert "".join(sample.name for batch in passes[1][0] for sample in batch) == "xyzxyzxy"
    else:
        whole = ["".join(sample.name for batch in batches for sample in batch) for batches in passes[0]]
        assert sorted(whole[0][:7]) == list("abcdefg") and len(set(whole)) == 7


def test_shards_have_different_numbers_in_the_pass() -> None:
    divisions = [divide_shards([4, 4], host, 4) for host in range(2)]
    assert [each.part(4, 2, named("ab"))[0] for each in divisions] == [4, 6]  # each one's second batch


def test_two_hosts_orders_are_not_alike() -> None:
    orders = [
        [
            sample.name
            for batch in divide_shards([16, 16], host, 2).shard_groups(named("abcdefghijklmnop"), 2, 0, 7)
            for sample in batch
        ]
        for host in range(2)
    ]
    assert np.all(np.sort(orders, axis=1) == list("abcdefghijklmnop")) and orders[0] != orders[1]


def test_streams_of_unknown_length_share_every_batch() -> None:
    assert [divide_shards([None, None, None], host, 7).size(7) for host in range(3)] == [2, 2, 3]
