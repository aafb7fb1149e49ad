from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from container.serving import admission
from container.serving.admission import Gate, Overloaded
from tests.conftest import wait_until

FAR = float("inf")
IMAGE = 10**6


def test_seats_are_given_in_order_of_arrival() -> None:
    gate, order = Gate(1, 10), []

    def work(number: int) -> None:
        with gate.seat(IMAGE, FAR):
            order.append(number)

    with ThreadPoolExecutor(5) as pool, gate.seat(IMAGE, FAR):
        for number in range(5):
            pool.submit(work, number)
            wait_until(lambda expected=number + 1: gate.waiting == expected, 30)
        assert order == []
    assert order == [0, 1, 2, 3, 4]


def test_no_more_than_the_seats_work_at_once() -> None:
    gate, together = Gate(3, 100), threading.Barrier(3)

    def work(_: int) -> int:
        with gate.seat(IMAGE, FAR):
            together.wait(30)  # breaks with fewer than three at a time
            return gate.waiting

    with ThreadPoolExecutor(6) as pool:
        waited = list(pool.map(work, range(6)))
    assert max(waited) <= 3


def test_places_are_limited_and_given_back() -> None:
    gate = Gate(1, 2)
    gate.take_place(0)
    gate.take_place(0)
    with pytest.raises(Overloaded, match="2 requests are here already") as refused:
        gate.take_place(0)
    assert (refused.value.status, refused.value.retry_after) == (503, 1)
    gate.leave_place(0)
    gate.take_place(0)


def test_the_bodies_that_are_here_are_limited_in_all() -> None:
    gate = Gate(1, 10, body_bytes=100)
    gate.take_place(150)  # alone, any body may come in
    with pytest.raises(Overloaded, match="150 bytes of other requests are here already"):
        gate.take_place(1)
    gate.leave_place(150)
    gate.take_place(60)
    gate.take_place(40)
    with pytest.raises(Overloaded):
        gate.take_place(1)


def test_who_could_not_be_answered_in_time_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(admission.time, "monotonic", lambda: now[0])
    gate = Gate(1, 10)
    with gate.seat(IMAGE, FAR):
        now[0] += 10  # an image takes ten seconds
    with gate.seat(2 * IMAGE, FAR):
        with pytest.raises(Overloaded, match="would not be answered in time") as refused:
            gate.seat(IMAGE, now[0] + 25).__enter__()
        assert refused.value.retry_after == 5  # 20 s for the one that works, 10 of its own, 25 allowed
    with gate.seat(IMAGE, now[0] + 5):
        pass  # with nobody ahead it is tried


def test_who_waits_is_refused_when_the_server_closes() -> None:
    gate = Gate(1, 10)
    with gate.seat(IMAGE, FAR), ThreadPoolExecutor(1) as pool:

        def wait() -> None:
            with gate.seat(IMAGE, FAR):
                raise AssertionError

        waiting = pool.submit(wait)
        wait_until(lambda: gate.waiting == 1, 30)
        gate.close_in(0)
        with pytest.raises(Overloaded, match="took too long"):
            waiting.result(30)
        assert gate.waiting == 0


def test_a_failure_gives_the_seat_back_and_teaches_nothing() -> None:
    gate = Gate(1, 10)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), gate.seat(IMAGE, time.monotonic() + 1):
            raise ZeroDivisionError
    with gate.seat(IMAGE, time.monotonic() + 1):
        assert gate.waiting == 0
