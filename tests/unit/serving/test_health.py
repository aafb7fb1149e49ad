"""An engine that fails on every image, and one that fails now and then."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from flask.testing import FlaskClient

from container.engines.protocol import CancellationToken, Plan
from container.errors import RequestError
from container.serving.app import create_app
from container.serving.health import Health
from tests.unit.serving.test_serving import SETTINGS, FakeEngine, error_of, invoke, loaded, picture


class Moody(FakeEngine):
    """Fails as long as it is told to."""

    error: Exception | None = None

    def mask(self, image: np.ndarray, plan: Plan | None = None, stop: CancellationToken | None = None) -> np.ndarray:
        if self.error:
            raise self.error
        return super().mask(image)


class Endpoint:
    def __init__(self) -> None:
        self.ends = 0
        self.engine = Moody()
        self.client: FlaskClient = create_app(loaded(self.engine), SETTINGS, health=Health(self.end)).test_client()

    def end(self) -> None:
        self.ends += 1

    def ask(self, error: Exception | None, times: int = 1) -> list[int]:
        self.engine.error = error
        return [invoke(self.client).status_code for _ in range(times)]


@pytest.fixture
def endpoint() -> Endpoint:
    return Endpoint()


BROKEN = RuntimeError("out of order")


def test_third_consecutive_failure_stops_the_worker_once(endpoint: Endpoint, caplog: pytest.LogCaptureFixture) -> None:
    assert (endpoint.ask(BROKEN, 2), endpoint.ends) == ([500, 500], 0)
    assert endpoint.client.get("/ping").status_code == 200
    with caplog.at_level(logging.ERROR, "gunicorn.error"):
        assert (endpoint.ask(BROKEN), endpoint.ends) == ([500], 1)
    assert (
        "Inference failed for 3 consecutive images. The process exits and is restarted. Last error: out of order"
        in caplog.text
    )
    refused = endpoint.client.get("/ping")
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
    assert error_of(refused) == "The inference engine failed, and the server restarts it. Try again."
    assert (endpoint.ask(BROKEN, 3), endpoint.ends) == ([500] * 3, 1)


def test_an_answer_in_between_forgives(endpoint: Endpoint) -> None:
    for _ in range(3):
        endpoint.ask(BROKEN, 2)
        assert endpoint.ask(None) == [200]
    assert endpoint.ends == 0 and endpoint.client.get("/ping").status_code == 200


def test_what_is_wrong_with_a_request_counts_neither_way(endpoint: Endpoint) -> None:
    endpoint.ask(BROKEN, 2)
    assert [invoke(endpoint.client, body).status_code for body in (b"no image", picture(101, 100))] == [400, 413]
    assert endpoint.ask(RequestError(499, "the client has left"), 5) == [499] * 5
    assert endpoint.ends == 0
    assert (endpoint.ask(BROKEN), endpoint.ends) == ([500], 1)
