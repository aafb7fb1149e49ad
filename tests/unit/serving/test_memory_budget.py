from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from container.errors import RequestError
from container.serving.memory_budget import MemoryBudget, MemoryEstimate, Reservation
from container.serving.models import LatencyEstimator
from container.serving.requests.deadline import RequestDeadline
from container.serving.requests.errors import ServiceUnavailableError
from tests.conftest import wait_until


def test_memory_for_bodies_is_not_used_for_inference() -> None:
    budget = MemoryBudget(800)  # 100 of them for bodies
    reservation = Reservation(budget)
    reservation.wait_for_memory(MemoryEstimate(700), RequestDeadline(10))
    with pytest.raises(ServiceUnavailableError):
        Reservation(budget).wait_for_memory(MemoryEstimate(1), RequestDeadline(0.1))
    Reservation(budget).add_body(100)
    assert budget.free == 0


def test_body_is_reserved_as_it_arrives() -> None:
    budget = MemoryBudget(800)
    first, second = Reservation(budget), Reservation(budget)
    first.add_body(60)
    second.add_body(40)
    with pytest.raises(ServiceUnavailableError, match="already holds 100 bytes of request bodies"):
        second.add_body(1)
    first.release_body()
    second.add_body(60)
    with pytest.raises(RequestError, match="more than the 100 bytes") as refused:
        second.add_body(1)
    assert refused.value.status == 413


def test_memory_is_reserved_in_order_of_arrival() -> None:
    budget, order = MemoryBudget(800), []
    holder = Reservation(budget)
    holder.wait_for_memory(MemoryEstimate(400), RequestDeadline(60))

    def take(size: int) -> None:
        reservation = Reservation(budget)
        reservation.wait_for_memory(MemoryEstimate(size), RequestDeadline(60))
        order.append(size)
        reservation.close()

    with ThreadPoolExecutor(2) as pool:
        large = pool.submit(take, 500)
        wait_until(lambda: len(budget._waiting) == 1, 30)
        small = pool.submit(take, 200)  # there would be room for it
        wait_until(lambda: len(budget._waiting) == 2, 30)
        holder.close()
        large.result(30)
        small.result(30)
    assert order == [500, 200]
    assert budget.reserved.total() == 0


def test_response_is_reserved_until_it_is_sent() -> None:
    budget = MemoryBudget(800)
    reservation = Reservation(budget)
    reservation.wait_for_memory(MemoryEstimate(500), RequestDeadline(10))
    reservation.replace_estimate(200)
    assert (budget.reserved["work"], budget.reserved["answers"]) == (0, 200)
    reservation.close()
    assert budget.free == 800


def test_image_memory_limits_one_image() -> None:
    assert MemoryBudget(800, image_memory=300).image_limit == 300
    assert MemoryBudget(800, image_memory=900).image_limit == 700


def test_latency_has_a_constant_and_a_part_per_pixel() -> None:
    latency = LatencyEstimator()
    assert (latency.estimate(10**6), latency.minimum(10**6)) == (0, 0)
    latency.update(100, 0.5)
    latency.update(10**6, 4.5)
    assert latency.estimate(100) == pytest.approx(0.5, abs=0.001)
    assert latency.estimate(10**6) == pytest.approx(4.5)
    latency.update(10**6, 44.5)  # a busy moment
    assert latency.estimate(10**6) == pytest.approx(0.5 + 0.7 * 4 + 0.3 * 44)
    assert latency.minimum(10**6) == pytest.approx(4)


def test_largest_transient_memory_counts_with_one_concurrent_inference() -> None:
    budget = MemoryBudget(800, max_concurrent_inferences=1)  # 100 of them for bodies
    reservations = [Reservation(budget) for _ in range(3)]
    reservations[0].wait_for_memory(MemoryEstimate(100, 400), RequestDeadline(10))
    reservations[1].wait_for_memory(MemoryEstimate(100, 500), RequestDeadline(10))
    assert (budget.reserved["work"], budget.reserved["computing"], budget.free) == (200, 500, 100)
    with pytest.raises(ServiceUnavailableError):
        reservations[2].wait_for_memory(MemoryEstimate(1, 500), RequestDeadline(0.1))
    reservations[1].replace_estimate(10)
    assert (budget.reserved["work"], budget.reserved["computing"], budget.reserved["answers"]) == (100, 400, 10)
    reservations[2].wait_for_memory(MemoryEstimate(90, 500), RequestDeadline(10))
    for reservation in reservations:
        reservation.close()
    assert budget.reserved.total() == 0


def test_transient_memory_counts_per_concurrent_inference() -> None:
    budget = MemoryBudget(2**20, max_concurrent_inferences=2)
    for transient in (300, 100, 200):
        Reservation(budget).wait_for_memory(MemoryEstimate(1, transient), RequestDeadline(10))
    assert budget.reserved["computing"] == 500
