"""`docker run IMAGE serve` as the platform does it, and under harder conditions than the platform's."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.container.conftest import NO_RIGHTS, Container, Image, assert_mask

ASK_INSIDE = """
import sys, time, urllib.request
photo = open("/photo.jpg", "rb").read()
request = urllib.request.Request("http://127.0.0.1:8080/invocations", photo, {"Content-Type": "image/jpeg"})
answer = urllib.request.urlopen(request, timeout=60).read()
print(answer.hex())
"""


def test_a_trained_model_answers_with_the_mount_alone(image: Image, trained: Path, photo: bytes) -> None:
    with image.serving(trained / "model") as server:
        server.wait_until_ready()
        answer = server.ask(photo)
        assert answer.status_code == 200, answer.text
        assert_mask(answer.content, classes=2)
        assert server.ask(b"no image").status_code == 400


def test_sigterm_ends_the_server_at_once(image: Image, trained: Path) -> None:
    with image.serving(trained / "model") as server:
        server.wait_until_ready()
        before = time.monotonic()
        assert server.terminate() == 0
        assert time.monotonic() - before < 10


def test_another_port_is_taken_from_the_environment(image: Image, trained: Path) -> None:
    mount = ("--volume", f"{trained}/model:/opt/ml/model:ro", "--env", "SAGEMAKER_BIND_TO_PORT=9099")
    with image.started("serve", options=(*mount, "--network", "none")) as server:
        server.wait_for("Listening at: http://[::]:9099")


def test_no_network_no_rights_no_user_and_a_read_only_root(image: Image, trained: Path, photo: bytes) -> None:
    jpeg = trained / "photo.jpg"
    jpeg.write_bytes(photo)
    mounts = ("--volume", f"{trained}/model:/opt/ml/model:ro", "--volume", f"{jpeg}:/photo.jpg:ro")
    with image.started("serve", options=(*mounts, *NO_RIGHTS)) as server:
        wait_inside(server)
        assert_mask(bytes.fromhex(server.call("exec", server.name, "python", "-c", ASK_INSIDE).strip()), classes=2)


def wait_inside(server: Container) -> None:
    """Wait until /ping answers, asked from within a container that has no network."""
    program = """
import time, urllib.request
deadline = time.monotonic() + 200
while time.monotonic() < deadline:
    try:
        urllib.request.urlopen("http://127.0.0.1:8080/ping", timeout=2)
        break
    except OSError:
        time.sleep(0.1)
else:
    raise SystemExit("no /ping")
"""
    server.call("exec", server.name, "python", "-c", program)


def test_one_cpu_and_one_gigabyte_suffice(image: Image, trained: Path, photo: bytes) -> None:
    with image.serving(trained / "model", "--memory", "1g", "--memory-swap", "1g", "--cpus", "1") as server:
        server.wait_until_ready()
        assert server.ask(photo).status_code == 200


def test_a_missing_model_is_one_clear_line(image: Image) -> None:
    done = image.run("serve", options=("--network", "none"))
    assert done.returncode == 1
    assert done.stderr.startswith("ClientError: /opt/ml/model does not contain a model: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("label", ["accept-bind-to-port", "multi-models"])
def test_the_label_that_the_platform_reads(image: Image, label: str) -> None:
    labels = image.inspect()["Config"]["Labels"]
    assert labels[f"com.amazonaws.sagemaker.capabilities.{label}"] == "true"
