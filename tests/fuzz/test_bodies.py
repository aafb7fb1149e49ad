"""Hostile bodies, through the application and through a real server: never a 500, a crash or growth, in bounded time.

FUZZ_BODIES says how many; `make fuzz` takes 10000; FUZZ_SEED chooses others.
"""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path

from container.mx.export import export_onnx
from container.serving.app import create_app
from container.serving.settings import ServeSettings
from tests.fuzz.bodies import bodies
from tests.job.server import Server, children, write_model
from tests.unit.serving.test_serving import FakeEngine, loaded

COUNT = int(os.environ.get("FUZZ_BODIES", "500"))
SEED = int(os.environ.get("FUZZ_SEED", "0"))
SECONDS = 2.0  # for the slowest, on a busy machine
GROWTH = 200 * 1024  # kilobytes


def test_no_body_is_our_fault() -> None:
    client = create_app(loaded(FakeEngine()), ServeSettings(Path("unused"))).test_client()
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


def test_no_body_harms_the_server(tmp_path: Path) -> None:
    export_onnx(write_model(tmp_path), tmp_path / "model" / "model.onnx")
    with Server(tmp_path, tmp_path / "log") as server:
        before, memory = children(server.process.pid), 0
        for number, body in enumerate(bodies(COUNT, SEED)):
            answer = server.invoke(body)
            assert answer.status_code in (200, 400, 413), f"body {number} of seed {SEED}: {answer.status_code}"
            if number == COUNT // 5:
                memory = resident(*before)
        assert children(server.process.pid) == before
        assert resident(*before) - memory < GROWTH


def resident(process_id: int) -> int:
    """The process's memory in kilobytes."""
    status = Path(f"/proc/{process_id}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
