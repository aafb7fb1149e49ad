from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from container.errors import RequestError
from container.serving.memory_budget import MemoryBudget, MemoryEstimate
from container.serving.requests.deadline import RequestDeadline
from container.serving.requests.errors import ServiceUnavailableError
from container.serving.requests.latency import LatencyEstimator
from tests.conftest import wait_until


def test_what_is_kept_for_bodies_is_not_given_to_work() -> None:
    ledger = MemoryBudget(800)  # 100 of them for bodies
    account = ledger.account()
    account.wait_for_work(MemoryEstimate(700), RequestDeadline(10))
    with pytest.raises(ServiceUnavailableError):
        ledger.account().wait_for_work(MemoryEstimate(1), RequestDeadline(0.1))
    ledger.account().add_body(100)
    assert ledger.free == 0


def test_a_body_is_counted_as_it_comes() -> None:
    ledger = MemoryBudget(800)
    first, second = ledger.account(), ledger.account()
    first.add_body(60)
    second.add_body(40)
    with pytest.raises(ServiceUnavailableError, match="100 bytes of requests are here already"):
        second.add_body(1)
    first.drop_body()
    second.add_body(60)
    with pytest.raises(RequestError, match="more than the 100 bytes") as refused:
        second.add_body(1)
    assert refused.value.status == 413


def test_memory_is_given_to_who_came_first_though_it_is_more() -> None:
    ledger, order = MemoryBudget(800), []
    holder = ledger.account()
    holder.wait_for_work(MemoryEstimate(400), RequestDeadline(60))

    def take(size: int) -> None:
        account = ledger.account()
        account.wait_for_work(MemoryEstimate(size), RequestDeadline(60))
        order.append(size)
        account.close()

    with ThreadPoolExecutor(2) as pool:
        large = pool.submit(take, 500)
        wait_until(lambda: len(ledger._queue) == 1, 30)
        small = pool.submit(take, 200)  # there would be room for it
        wait_until(lambda: len(ledger._queue) == 2, 30)
        holder.close()
        large.result(30)
        small.result(30)
    assert order == [500, 200]
    assert ledger.taken.total() == 0


def test_an_answer_is_counted_until_it_is_sent() -> None:
    ledger = MemoryBudget(800)
    account = ledger.account()
    account.wait_for_work(MemoryEstimate(500), RequestDeadline(10))
    account.keep_answer(200)
    assert (ledger.taken["work"], ledger.taken["answers"]) == (0, 200)
    account.close()
    assert ledger.free == 800


def test_one_image_may_be_given_less_than_there_is() -> None:
    assert MemoryBudget(800, image_bound=300).image_room == 300
    assert MemoryBudget(800, image_bound=900).image_room == 700


def test_speed_tells_small_images_from_large_ones() -> None:
    speed = LatencyEstimator()
    assert (speed.estimate(10**6), speed.least(10**6)) == (0, 0)
    speed.learn(100, 0.5)
    speed.learn(10**6, 4.5)
    assert speed.estimate(100) == pytest.approx(0.5, abs=0.001)
    assert speed.estimate(10**6) == pytest.approx(4.5)
    speed.learn(10**6, 44.5)  # a busy moment
    assert speed.estimate(10**6) == pytest.approx(0.5 + 0.7 * 4 + 0.3 * 44)
    assert speed.least(10**6) == pytest.approx(4)


def test_of_images_that_are_computed_by_turns_the_largest_counts() -> None:
    ledger = MemoryBudget(800, lanes=1)  # 100 of them for bodies
    accounts = [ledger.account() for _ in range(3)]
    accounts[0].wait_for_work(MemoryEstimate(100, 400), RequestDeadline(10))
    accounts[1].wait_for_work(MemoryEstimate(100, 500), RequestDeadline(10))
    assert (ledger.taken["work"], ledger.taken["computing"], ledger.free) == (200, 500, 100)
    with pytest.raises(ServiceUnavailableError):
        accounts[2].wait_for_work(MemoryEstimate(1, 500), RequestDeadline(0.1))
    accounts[1].keep_answer(10)
    assert (ledger.taken["work"], ledger.taken["computing"], ledger.taken["answers"]) == (100, 400, 10)
    accounts[2].wait_for_work(MemoryEstimate(90, 500), RequestDeadline(10))
    for account in accounts:
        account.close()
    assert ledger.taken.total() == 0


def test_as_many_images_count_as_are_computed_at_once() -> None:
    ledger = MemoryBudget(2**20, lanes=2)
    for passing in (300, 100, 200):
        ledger.account().wait_for_work(MemoryEstimate(1, passing), RequestDeadline(10))
    assert ledger.taken["computing"] == 500
