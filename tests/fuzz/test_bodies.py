"""Hostile bodies through the whole application: always an answer, never a 500, in bounded time and memory.

FUZZ_BODIES says how many; `make fuzz` takes 10000; FUZZ_SEED chooses others.
"""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path

from container.serve_settings import ServeSettings
from container.serving.app import create_app
from container.serving.models import Model
from tests.fuzz.bodies import bodies
from tests.unit.test_serving import FakeEngine

COUNT = int(os.environ.get("FUZZ_BODIES", "500"))
SEED = int(os.environ.get("FUZZ_SEED", "0"))
SECONDS = 2.0  # for the slowest, on a busy machine
GROWTH = 200 * 1024  # kilobytes


def test_no_body_is_our_fault() -> None:
    client = create_app(Model(FakeEngine(), {}), ServeSettings(Path("unused"))).test_client()
    statuses: set[int] = set()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number, body in enumerate(bodies(COUNT, SEED)):
        start = time.process_time()
        answer = client.post("/invocations", data=body, content_type="image/png", buffered=True)
        assert answer.status_code in (200, 400, 413), f"body {number} of seed {SEED}: {answer.status_code}"
        assert time.process_time() - start < SECONDS, f"body {number} of seed {SEED} took too long"
        statuses.add(answer.status_code)
    assert statuses == {200, 400, 413}
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < GROWTH
