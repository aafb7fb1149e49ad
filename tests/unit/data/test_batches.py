"""Batches: in order, in parallel, bounded, and gone when they are no longer wanted."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import pytest

from container.data.batches import Batch, Pair, Rollover, batches, groups
from tests.conftest import wait_until


@dataclasses.dataclass(frozen=True)
class Numbered:
    """A sample that is only its number."""

    number: int

    @property
    def name(self) -> str:
        return str(self.number)

    def read(self) -> tuple[bytes, bytes]:
        return b"", b""


def pair(sample: Numbered, number: int) -> Pair:
    return np.full((2, 2, 3), sample.number, np.uint8), np.full((2, 2), number, np.uint8)


def run(
    grouped: Iterable[list[Numbered]], transform: Callable[..., Pair | None] = pair, workers: int = 2
) -> Iterator[Batch]:
    return batches(lambda stopped: grouped, transform, workers, threading.Event())


def test_batches_come_in_order_with_the_last_one_smaller() -> None:
    made = list(run(groups([Numbered(i) for i in range(7)], 3), workers=4))
    assert [batch.images[:, 0, 0, 0].tolist() for batch in made] == [[0, 1, 2], [3, 4, 5], [6]]
    assert [batch.labels[:, 0, 0].tolist() for batch in made] == [[0, 1, 2], [3, 4, 5], [6]]


def test_leftovers_open_the_next_pass() -> None:
    rollover = Rollover(3)
    passes = [[[s.number for s in group] for group in rollover.groups(Numbered(i) for i in range(5))] for _ in range(3)]
    assert passes == [[[0, 1, 2]], [[3, 4, 0], [1, 2, 3]], [[4, 0, 1], [2, 3, 4]]]


def test_a_pass_entered_in_its_midst_goes_on_as_if_it_had_been_made_from_its_beginning() -> None:
    def made(skip: int) -> list[Batch]:
        samples = groups([Numbered(i) for i in range(7)], 3)
        return list(batches(lambda stopped: samples, pair, 2, threading.Event(), skip))

    whole = made(0)
    assert [batch.group for batch in whole] == [0, 1, 2]
    for skip in range(4):
        rest = made(skip)
        assert [batch.group for batch in rest] == list(range(skip, 3))
        for batch, expected in zip(rest, whole[skip:], strict=True):
            assert np.array_equal(batch.images, expected.images) and np.array_equal(batch.labels, expected.labels)


def test_what_opens_the_next_pass_can_be_given_to_another_start() -> None:
    first, second = Rollover(3), Rollover(3)
    list(first.groups(Numbered(i) for i in range(5)))
    assert first.kept == [Numbered(3), Numbered(4)]
    second.kept = list(first.kept)
    assert list(second.groups([Numbered(9)])) == list(first.groups([Numbered(9)])) == [[*map(Numbered, (3, 4, 9))]]


def test_a_pass_shorter_than_a_batch_is_one_batch() -> None:
    rollover = Rollover(8)
    for _ in range(2):
        assert [[s.number for s in group] for group in rollover.groups([Numbered(1), Numbered(2)])] == [[1, 2]]


def test_reading_runs_ahead_of_the_device_but_not_far() -> None:
    read: list[int] = []

    def source():
        for number in range(1000):
            read.append(number)
            yield Numbered(number)

    made = run(groups(source(), 2))
    next(made)
    wait_until(lambda: len(read) >= 6, 10)  # the thread goes on without being asked
    threading.Event().wait(0.2)
    assert len(read) <= 2 * 5
    made.close()


def test_closing_stops_every_thread() -> None:
    before = threading.active_count()
    made = run(groups((Numbered(i) for i in range(10**9)), 2), workers=3)
    next(made)
    assert threading.active_count() > before
    made.close()
    wait_until(lambda: threading.active_count() == before, 10)


def test_a_fault_of_the_reader_or_of_a_worker_reaches_the_user() -> None:
    def broken(sample: Numbered, number: int) -> Pair:
        raise ValueError(f"sample {sample.name}")

    def source():
        yield Numbered(0)
        raise OSError("gone")

    with pytest.raises(ValueError, match="sample 0"):
        list(run(groups([Numbered(0)], 1), broken))
    with pytest.raises(OSError, match="gone"):
        list(run(groups(source(), 1)))


def test_what_has_no_pair_is_left_out() -> None:
    def odd(sample: Numbered, number: int) -> Pair | None:
        return pair(sample, number) if sample.number % 2 else None

    made = list(run(groups([Numbered(i) for i in (0, 1, 3, 2, 4, 6, 5)], 3), odd))
    assert [batch.images[:, 0, 0, 0].tolist() for batch in made] == [[1, 3], [5]]


def test_a_reader_that_waits_for_ever_is_told_to_stop() -> None:
    def silent(stopped: threading.Event) -> Iterator[list[Numbered]]:
        yield [Numbered(0)]
        stopped.wait()

    stop = threading.Event()
    made = batches(silent, pair, 1, stop)
    assert len(next(made)) == 1
    stop.set()
    assert list(made) == []
    assert not [thread for thread in threading.enumerate() if thread.name == "read"]
