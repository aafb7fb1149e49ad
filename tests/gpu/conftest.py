"""What only GPUs can show (make test-gpu); everywhere else these tests are skipped, with the reason."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.gpu.cards import compute_capabilities


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.gpu)


@pytest.fixture(autouse=True)
def _a_card(request: pytest.FixtureRequest) -> None:
    """Skip a test that this machine's GPUs cannot run."""
    try:
        capabilities = compute_capabilities()
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"there is no GPU here: nvidia-smi: {error}")
    hopper = max(capabilities) >= 9
    if hopper != (request.node.get_closest_marker("hopper") is not None):
        pytest.skip(f"the compute capability is {capabilities[0]}: this needs one {'below' if hopper else 'of'} 9.0")


@pytest.fixture
def gpus() -> int:
    """Return how many GPUs there are; a test that compares several with one is skipped with fewer than two."""
    count = len(compute_capabilities())
    if count < 2:
        pytest.skip("this compares several GPUs with one, there is only one")
    return count
