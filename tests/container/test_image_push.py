"""`local_test/build_and_push.sh` with the built image and a real registry on the loopback address."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import PROGRAM, wait_until
from tests.container.conftest import PATIENCE, Image, free_port

DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
ANY_MANIFEST = f"{DOCKER_MANIFEST}, application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json"


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    """The address of an empty registry."""
    program = shutil.which("docker-registry")
    if program is None:
        pytest.skip("there is no docker-registry (apt-get install docker-registry)")
    address = f"127.0.0.1:{free_port()}"
    settings = {
        "version": 0.1,
        "storage": {"filesystem": {"rootdirectory": str(tmp_path / "registry")}},
        "http": {"addr": address},
    }
    (tmp_path / "registry.yml").write_text(json.dumps(settings))  # YAML contains JSON
    with (tmp_path / "registry.log").open("wb") as log:
        server = subprocess.Popen([program, "serve", str(tmp_path / "registry.yml")], stdout=log, stderr=log)

    def is_ready() -> bool:
        assert server.poll() is None, (tmp_path / "registry.log").read_text()
        try:
            urllib.request.urlopen(f"http://{address}/v2/", timeout=5).close()
        except OSError:
            return False
        return True

    try:
        wait_until(is_ready, PATIENCE, (tmp_path / "registry.log").read_text)
        yield address
    finally:
        server.terminate()
        server.wait(timeout=60)
        shutil.rmtree(tmp_path / "registry", ignore_errors=True)


def push(image: str, registry: str) -> subprocess.CompletedProcess[str]:
    command = [str(PROGRAM / "local_test/build_and_push.sh"), "us-west-2", "semseg", image]
    environment = {**os.environ, "REGISTRY": registry}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)


def test_pushed_image_has_a_docker_manifest_for_amd64(image: Image, registry: str) -> None:
    done = push(image.name, registry)
    assert done.returncode == 0, done.stdout + done.stderr
    tag = image.name.rpartition(":")[2]
    assert done.stdout.splitlines()[-1] == f"image_uri={registry}/semseg:{tag}"
    url = f"http://{registry}/v2/semseg"
    request = urllib.request.Request(f"{url}/manifests/{tag}", headers={"Accept": ANY_MANIFEST})
    with urllib.request.urlopen(request, timeout=60) as response:
        assert response.headers["Content-Type"] == DOCKER_MANIFEST
        manifest = json.load(response)
    with urllib.request.urlopen(f"{url}/blobs/{manifest['config']['digest']}", timeout=60) as response:
        config = json.load(response)
    assert (config["os"], config["architecture"]) == ("linux", "amd64")
    assert config["config"]["Cmd"] == ["train"]


def test_image_for_another_processor_fails_the_push(image: Image, registry: str, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n")
    name = "localhost/semseg-arm64:cpu"
    build = [image.engine, "build", "--platform", "linux/arm64", "-t", name, str(tmp_path)]
    subprocess.run(build, check=True, capture_output=True, timeout=PATIENCE)
    try:
        done = push(name, registry)
    finally:
        subprocess.run([image.engine, "rmi", "--force", name], capture_output=True, timeout=60)
    assert done.returncode == 1
    assert f"{registry}/semseg:cpu is built for linux/arm64." in done.stderr
