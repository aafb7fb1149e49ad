"""The built image, run by whichever engine is there; IMAGE names another one than the CPU image."""

from __future__ import annotations

import contextlib
import io
import json
import os
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from PIL import Image as Pillow

from local_test.predict import ping
from tests.conftest import PROGRAM, job_factory, wait_until

PATIENCE = 240  # seconds until what should happen has failed to

# As hard as a run can be made: no writable file system, no rights, no network, a user that nobody knows.
NO_RIGHTS = ("--network", "none", "--cap-drop", "ALL", "--user", "12345:54321", "--read-only")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.container)


class Container:
    """A container in the background; it is removed at the end of the test."""

    def __init__(self, engine: str, name: str, port: int | None) -> None:
        self.engine = engine
        self.name = name
        self.url = f"http://127.0.0.1:{port}"

    def call(self, verb: str, *arguments: str) -> str:
        command = [self.engine, verb, *arguments]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=PATIENCE)
        assert done.returncode == 0, f"{command}: {done.stdout}"
        return done.stdout

    def logs(self) -> str:
        return self.call("logs", self.name)

    def running(self) -> bool:
        return self.call("inspect", "--format", "{{.State.Running}}", self.name).strip() == "true"

    def terminate(self) -> int:
        """Send SIGTERM to the container's first process, and return the exit code."""
        self.call("kill", "--signal", "TERM", self.name)
        return int(self.call("wait", self.name).split()[-1])

    def wait_for(self, text: str) -> None:
        """Wait until the log says `text`."""
        command = [self.engine, "logs", "--follow", self.name]
        follower = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        deadline = threading.Timer(PATIENCE, follower.kill)
        deadline.start()
        try:
            assert follower.stdout
            assert any(text in line for line in follower.stdout), self.logs()
        finally:
            deadline.cancel()
            follower.kill()
            follower.wait()

    def wait_until_ready(self) -> None:
        def is_ready() -> bool:
            assert self.running(), self.logs()
            return ping(self.url)

        wait_until(is_ready, PATIENCE, self.logs)

    def ask(self, image: bytes, accept: str = "image/png") -> requests.Response:
        headers = {"Content-Type": "image/jpeg", "Accept": accept}
        return requests.post(f"{self.url}/invocations", image, headers=headers, timeout=PATIENCE)


class Image:
    """The image under test."""

    def __init__(self, engine: str, name: str) -> None:
        self.engine = engine
        self.name = name

    def inspect(self) -> dict[str, Any]:
        return dict(json.loads(subprocess.check_output([self.engine, "image", "inspect", self.name]))[0])

    def command(self, *arguments: str, options: tuple[str, ...] = ()) -> list[str]:
        strict = ["--read-only-tmpfs=false"] if "--read-only" in options and self.engine.endswith("podman") else []
        return [self.engine, "run", *strict, *options, self.name, *arguments]

    def run(self, *arguments: str, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        command = self.command(*arguments, options=("--rm", *options))
        return subprocess.run(command, capture_output=True, text=True, timeout=600)

    @contextlib.contextmanager
    def started(self, *arguments: str, options: tuple[str, ...] = (), port: bool = False) -> Iterator[Container]:
        """Run in the background; with `port`, the container's 8080 is at `url`."""
        container = Container(self.engine, f"test-{uuid.uuid4().hex}", free_port() if port else None)
        published = ("--publish", f"{container.url.removeprefix('http://')}:8080") if port else ()
        command = self.command(*arguments, options=("--detach", "--name", container.name, *published, *options))
        started = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
        try:
            assert started.returncode == 0, started.stderr
            yield container
        finally:
            subprocess.run([self.engine, "rm", "--force", container.name], stdout=subprocess.DEVNULL, timeout=60)

    def serving(self, model: Path, *options: str) -> contextlib.AbstractContextManager[Container]:
        """Serve a model directory at a free port."""
        mount = ("--volume", f"{model}:/opt/ml/model:ro")
        return self.started("serve", options=(*mount, *options), port=True)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def mounted(root: Path) -> tuple[str, ...]:
    return ("--volume", f"{root}:/opt/ml")


@pytest.fixture(scope="session")
def image() -> Image:
    script = f"source {PROGRAM}/local_test/engine.sh && container_engine"
    found = subprocess.run(["bash", "-c", script], stdout=subprocess.PIPE, text=True)
    assert found.returncode == 0, "the tests of the image need docker or podman"
    image = Image(found.stdout.strip(), os.environ.get("IMAGE", "sagemaker-semantic-segmentation:cpu"))
    image.inspect()
    return image


@pytest.fixture(scope="session")
def trained(image: Image, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of a File job that ran to its end: fcn, one epoch, no network."""
    root = tmp_path_factory.mktemp("file")
    job_factory(root)(train=4, validation=2)
    done = image.run("train", options=("--network", "none", *mounted(root)))
    assert done.returncode == 0, done.stdout + done.stderr
    (root / "log").write_text(done.stdout)
    return root


@pytest.fixture
def photo(trained: Path) -> bytes:
    """A JPEG of 48 by 40 pixels."""
    return (trained / "input/data/validation/validation-0.jpg").read_bytes()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """The repository as a person has it who ran `make setup`."""
    root = tmp_path / "tree"
    root.mkdir()
    for name in ("local_test", "container"):
        (root / name).symlink_to(PROGRAM / name)
    (root / ".venv").symlink_to(sys.prefix)
    return root


def assert_mask(answer: bytes, classes: int) -> None:
    """Hold an answer to what a mask of `photo` is, by Pillow's own reading."""
    mask = Pillow.open(io.BytesIO(answer))
    assert (mask.mode, mask.size) == ("L", (48, 40))
    assert int(np.asarray(mask).max()) < classes
