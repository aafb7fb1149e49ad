from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture
def ended() -> Iterator[None]:
    """Leave no host's process of a test that has failed."""
    yield
    from tests.job import cluster  # which imports MXNet: not for tests that have no hosts

    for each in cluster.STARTED:
        each.kill()
    cluster.STARTED.clear()
