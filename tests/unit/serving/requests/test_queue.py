from __future__ import annotations

import math
import threading
from concurrent import futures
from concurrent.futures import ThreadPoolExecutor

import pytest

from container.serving.memory_budget import MemoryBudget, MemoryEstimate, Reservation
from container.serving.requests import queue
from container.serving.requests.deadline import RequestDeadline
from container.serving.requests.errors import ServiceUnavailableError
from container.serving.requests.queue import RequestQueue
from tests.conftest import wait_until


def deadline(seconds: float = 1000, queue_seconds: float = math.inf) -> RequestDeadline:
    """A deadline that leaves so many seconds for the answer, and so many to wait."""
    return RequestDeadline(seconds + 2 if seconds > 6 else seconds * 4 / 3, queue_seconds=queue_seconds)


def test_slots_are_assigned_in_order_of_arrival() -> None:
    requests_queue, order = RequestQueue(1), []

    def work(number: int) -> None:
        with requests_queue.slot(0, deadline()):
            order.append(number)

    with ThreadPoolExecutor(5) as pool, requests_queue.slot(0, deadline()):
        for number in range(5):
            pool.submit(work, number)
            wait_until(lambda expected=number + 1: requests_queue.waiting == expected, 30)
        assert order == []
    assert order == [0, 1, 2, 3, 4]


def test_concurrent_requests_are_limited() -> None:
    requests_queue, together = RequestQueue(3), threading.Barrier(3)

    def work(_: int) -> int:
        with requests_queue.slot(0, deadline()):
            together.wait(30)  # breaks with fewer than three at a time
            return requests_queue.in_flight

    with ThreadPoolExecutor(6) as pool:
        assert max(pool.map(work, range(6))) <= 3
    assert (requests_queue.in_flight, requests_queue.waiting) == (0, 0)


def test_request_that_would_miss_its_deadline_is_rejected_immediately(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(queue.time, "monotonic", lambda: now[0])
    requests_queue = RequestQueue(1)
    with requests_queue.slot(20, deadline()):
        with pytest.raises(ServiceUnavailableError, match="for about 20 s") as refused:
            requests_queue.slot(10, deadline(25)).__enter__()
        assert refused.value.retry_after == 5  # 20 s for the one that works, 10 of its own, 25 allowed
        now[0] += 6
        assert requests_queue.waiting == 0
        with pytest.raises(ServiceUnavailableError, match="for about 14 s"):
            requests_queue.slot(10, deadline(20)).__enter__()
    with requests_queue.slot(10, deadline(5)):
        pass  # with nobody ahead it is tried


def test_a_request_waits_at_most_as_long_as_its_clock_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(queue.time, "monotonic", lambda: now[0])
    requests_queue = RequestQueue(1)
    with requests_queue.slot(9, deadline()), pytest.raises(ServiceUnavailableError, match="for about 9 s"):
        requests_queue.slot(0, deadline(queue_seconds=8)).__enter__()
    with requests_queue.slot(7, deadline()), ThreadPoolExecutor(1) as pool:  # which takes longer than was thought
        waiting = pool.submit(requests_queue.slot(0, deadline(queue_seconds=8)).__enter__)
        wait_until(lambda: requests_queue.waiting == 1, 30)
        now[0] += 8.5
        with pytest.raises(ServiceUnavailableError, match="took too long"):
            waiting.result(30)


def test_waits_for_a_slot_and_for_memory_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(queue.time, "monotonic", lambda: now[0])
    requests_queue, budget, patient = RequestQueue(1), MemoryBudget(800), deadline(queue_seconds=8)
    holder = Reservation(budget)
    holder.wait_for_memory(MemoryEstimate(400), deadline())

    def wait() -> None:
        with requests_queue.slot(0, patient):
            now[0] += 60  # what is no waiting does not count
            Reservation(budget).wait_for_memory(MemoryEstimate(400), patient)

    with ThreadPoolExecutor(1) as pool:
        try:
            with requests_queue.slot(0, deadline()):
                waiting = pool.submit(wait)
                wait_until(lambda: requests_queue.waiting == 1, 30)
                now[0] += 6
            wait_until(lambda: len(budget._waiting) == 1, 30)
            assert patient.queue_seconds == 2
            now[0] += 1.5
            assert not futures.wait([waiting], timeout=0.7).done
            now[0] += 1
            with pytest.raises(ServiceUnavailableError, match="QUEUE_SECONDS"):
                waiting.result(5)
        finally:
            now[0] += 10_000  # whatever waits ends
    assert (requests_queue.in_flight, budget.reserved["work"]) == (0, 400)


def test_two_lanes_halve_the_wait() -> None:
    requests_queue = RequestQueue(2, max_concurrent_inferences=2)
    with requests_queue.slot(5, deadline()), requests_queue.slot(5, deadline()), ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(requests_queue.slot(0, deadline(queue_seconds=6)).__enter__)
        wait_until(lambda: requests_queue.waiting == 1, 30)
        requests_queue.close_in(0)
        with pytest.raises(ServiceUnavailableError, match="took too long"):
            waiting.result(30)


def test_waiting_request_is_rejected_when_the_queue_closes() -> None:
    requests_queue = RequestQueue(1)
    with requests_queue.slot(0, deadline()), ThreadPoolExecutor(1) as pool:

        def wait() -> None:
            with requests_queue.slot(0, deadline()):
                raise AssertionError

        waiting = pool.submit(wait)
        wait_until(lambda: requests_queue.waiting == 1, 30)
        requests_queue.close_in(0)
        with pytest.raises(ServiceUnavailableError, match="took too long"):
            waiting.result(30)
        assert requests_queue.waiting == 0


def test_failed_request_releases_its_slot() -> None:
    requests_queue = RequestQueue(1)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), requests_queue.slot(0, deadline(1)):
            raise ZeroDivisionError
    with requests_queue.slot(0, deadline(1)):
        assert (requests_queue.waiting, requests_queue.in_flight) == (0, 1)
