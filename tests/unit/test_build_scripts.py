"""The scripts that build and push images, with stand-ins for the engines and for AWS's command line."""

from __future__ import annotations

import base64
import http.server
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SETTINGS = ("REGISTRY", "BASE_IMAGE", "BUILD_OPTIONS", "PRETRAINED", "PRETRAINED_MIRROR")
ADDRESS = "210987654321.dkr.ecr.us-west-2.amazonaws.com"
IMAGE = "sagemaker-semantic-segmentation:cpu"


class Bin:
    """A folder first on the PATH, whose commands note how they were called."""

    def __init__(self, root: Path) -> None:
        self.folder = root / "bin"
        self.folder.mkdir()
        self.log = root / "calls"

    def add(self, name: str, script: str = "") -> None:
        path = self.folder / name
        path.write_text(f'#!/bin/sh\necho "{name} $*" >> {self.log}\n{script}\n')
        path.chmod(0o755)

    def calls(self) -> list[str]:
        return [call for call in self.log.read_text().splitlines() if not call.endswith((" version", " --help"))]

    def run(self, script: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        kept = {
            name: value for name, value in os.environ.items() if name not in SETTINGS and "proxy" not in name.lower()
        }
        environment = {**kept, "PATH": f"{self.folder}:{os.environ['PATH']}", **variables}
        command = [str(ROOT / "local_test" / script), *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


@pytest.fixture
def bin(tmp_path: Path) -> Bin:
    return Bin(tmp_path)


def test_docker_builds_where_it_answers(bin: Bin) -> None:
    bin.add("docker")
    bin.add("podman")
    done = bin.run("build_image.sh", "Dockerfile.cpu", "name:cpu", PRETRAINED="resnet-50")
    assert done.returncode == 0, done.stderr
    (call,) = bin.calls()
    assert call.startswith(
        "docker build -f Dockerfile.cpu -t name:cpu --platform linux/amd64 --build-arg PRETRAINED=resnet-50 "
    )
    assert call.endswith(" .")
    assert re.search(r" --build-arg VERSION=\d+\.\d+\.\d+ ", call)  # the changelog's latest
    assert "BASE_IMAGE" not in call and "ImageNet" not in done.stderr


def test_a_client_without_its_engine_is_passed_over(bin: Bin) -> None:
    bin.add("docker", "exit 1")
    bin.add("podman", "exit 1")
    bin.add("buildah")
    done = bin.run("build_image.sh", "Dockerfile", "name:gpu", BASE_IMAGE="mirror/base", BUILD_OPTIONS="--network host")
    assert done.returncode == 0, done.stderr
    (call,) = bin.calls()
    assert call.startswith(
        "buildah build -f Dockerfile -t name:gpu --platform linux/amd64 --build-arg PRETRAINED=resnet-50,resnet-101 "
    )
    assert " --build-arg BASE_IMAGE=mirror/base --network host ." in call
    assert "ImageNet" not in done.stderr


def test_without_weights_the_build_says_what_jobs_need(bin: Bin) -> None:
    bin.add("docker")
    done = bin.run("build_image.sh", "Dockerfile.cpu", "name:cpu", PRETRAINED="none")
    assert done.returncode == 0, done.stderr
    assert " --build-arg PRETRAINED=none " in bin.calls()[0]
    assert "its jobs need the channel pretrained, the channel model or use_pretrained_model=False" in done.stderr


def test_a_mirror_and_a_proxy_reach_the_build_and_a_failure_names_the_ways_out(bin: Bin) -> None:
    bin.add("docker", '[ "$1" = version ]')
    variables = {"PRETRAINED_MIRROR": "http://mirror/weights", "https_proxy": "http://proxy:3128"}
    done = bin.run("build_image.sh", "Dockerfile.cpu", "name:cpu", **variables)
    assert done.returncode == 1
    (call,) = bin.calls()
    assert " --build-arg PRETRAINED_MIRROR=http://mirror/weights --build-arg https_proxy=http://proxy:3128 ." in call
    for way in ("put them into pretrained/", "PRETRAINED_MIRROR", "PRETRAINED=none"):
        assert way in done.stderr
    assert "ImageNet" not in bin.run("build_image.sh", "Dockerfile.cpu", "name:cpu", PRETRAINED="none").stderr


@pytest.mark.parametrize(
    ("arguments", "reason"), [(["Dockerfile"], "usage:"), (["Dockerfile.tpu", "x"], "there is no Dockerfile.tpu")]
)
def test_wrong_build_arguments_are_named(bin: Bin, arguments: list[str], reason: str) -> None:
    done = bin.run("build_image.sh", *arguments)
    assert done.returncode == 2
    assert reason in done.stderr


def test_without_any_engine_the_remedy_is_named(bin: Bin) -> None:
    for name in ("docker", "podman", "buildah"):
        bin.add(name, "exit 1")
    done = bin.run("build_image.sh", "Dockerfile", "name:gpu")
    assert done.returncode == 1
    assert "no container engine answers: start docker, or install podman" in done.stderr


# What the engines print of the options that matter, as of docker 26.1 with buildx 0.13, docker 20.10, podman 4.3.
BUILDX_HELP = """
      --platform stringArray          Set target platform for build
      --provenance string             Shorthand for attest=type=provenance
      --sbom string                   Shorthand for attest=type=sbom"""
LEGACY_HELP = "      --platform string         Set platform if server is multi-platform"
PODMAN_HELP = """
      --format format                                format of the built image's manifest and metadata.
      --sbom preset                                  scan working container using preset configuration
      --tls-verify                                   require HTTPS"""


@pytest.mark.parametrize(
    ("engine", "help_text", "options"),
    [
        ("docker", BUILDX_HELP, "--provenance=false --sbom=false --output type=docker,oci-mediatypes=false "),
        ("docker", LEGACY_HELP, ""),
        ("docker", PODMAN_HELP, "--format docker "),  # the package podman-docker
        ("podman", PODMAN_HELP, "--format docker "),
        ("buildah", PODMAN_HELP, "--format docker "),
    ],
)
def test_image_is_built_as_sagemaker_accepts_it(bin: Bin, engine: str, help_text: str, options: str) -> None:
    for name in ("docker", "podman", "buildah"):
        bin.add(name, "exit 1")
    bin.add(engine, f'[ "$2" != --help ] || echo "{help_text}"')
    done = bin.run("build_image.sh", "Dockerfile.cpu", "name:cpu", PRETRAINED="none")
    assert done.returncode == 0, done.stderr
    (call,) = (call for call in bin.calls() if call.startswith(engine))
    start = f"{engine} build -f Dockerfile.cpu -t name:cpu --platform linux/amd64 {options}--build-arg PRETRAINED=none "
    assert call.startswith(start)


@pytest.fixture
def registry() -> Iterator[Registry]:
    with Registry() as server:
        yield server


class Registry(http.server.ThreadingHTTPServer):
    """A registry on the loopback address with one image, `semseg:cpu`, whose blobs are behind a redirect."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), RegistryHandler)
        self.address = f"127.0.0.1:{self.server_port}"
        self.media_type = "application/vnd.docker.distribution.manifest.v2+json"
        self.config: dict[str, object] = {"os": "linux", "architecture": "amd64"}
        self.password = ""
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def __exit__(self, *arguments: object) -> None:
        self.shutdown()
        super().__exit__(*arguments)


class RegistryHandler(http.server.BaseHTTPRequestHandler):
    server: Registry

    def do_GET(self) -> None:
        expected = base64.b64encode(f"AWS:{self.server.password}".encode()).decode() if self.server.password else None
        given = self.headers.get("Authorization", "").removeprefix("Basic ") or None
        if self.path == "/storage/config":  # as S3, which rejects a second way of authentication
            status, kind, content = 400 if given else 200, "binary/octet-stream", self.server.config
        elif given != expected:
            status, kind, content = 401, "application/json", {}
        elif self.path == "/v2/semseg/manifests/cpu":
            assert self.server.media_type in self.headers["Accept"]
            status, kind, content = 200, self.server.media_type, {"config": {"digest": "sha256:1"}}
        else:
            assert self.path == "/v2/semseg/blobs/sha256:1"
            status, kind, content = 307, "text/plain", {}
        self.send_response(status)
        self.send_header("Content-Type", kind)
        if status == 307:
            self.send_header("Location", "/storage/config")
        self.end_headers()
        self.wfile.write(json.dumps(content).encode())

    def log_message(self, *arguments: object) -> None:
        pass


def test_image_is_pushed_to_a_registry_on_this_machine_without_aws(bin: Bin, registry: Registry) -> None:
    bin.add("docker", "exit 1")
    bin.add("podman", f'[ "$2" != --help ] || echo "{PODMAN_HELP}"')
    bin.add("aws", "exit 1")
    done = bin.run("build_and_push.sh", "us-west-2", "semseg", IMAGE, REGISTRY=registry.address)
    assert done.returncode == 0, done.stderr
    assert [call for call in bin.calls() if call.startswith(("podman push", "aws"))] == [
        f"podman push --format v2s2 --tls-verify=false {registry.address}/semseg:cpu"
    ]
    assert done.stdout.splitlines()[-1] == f"image_uri={registry.address}/semseg:cpu"


@pytest.mark.parametrize(
    ("media_type", "architecture", "problem"),
    [
        ("application/vnd.oci.image.index.v1+json", "amd64", "has the media type application/vnd.oci.image.index"),
        ("application/vnd.oci.image.manifest.v1+json", "amd64", "accepts only application/vnd.docker.distribution.m"),
        ("application/vnd.docker.distribution.manifest.list.v2+json", "amd64", "has the media type"),
        ("application/vnd.docker.distribution.manifest.v2+json", "arm64", "is built for linux/arm64"),
    ],
)
def test_pushed_image_that_sagemaker_rejects_fails_the_script(
    bin: Bin, registry: Registry, media_type: str, architecture: str, problem: str
) -> None:
    bin.add("docker")
    registry.media_type, registry.config["architecture"] = media_type, architecture
    done = bin.run("build_and_push.sh", "us-west-2", "semseg", IMAGE, REGISTRY=registry.address)
    assert done.returncode == 1
    assert problem in done.stderr
    assert "Remove the local image, and build it with make image or make image-cpu." in done.stderr
    assert "image_uri" not in done.stdout


def test_manifest_is_read_with_the_password_of_the_registry(registry: Registry) -> None:
    registry.password = "secret"
    script = ROOT / "local_test" / "check_manifest.py"
    for password, status in (("secret", 0), ("wrong", 1)):
        command = [sys.executable, str(script), f"{registry.address}/semseg:cpu"]
        done = subprocess.run(command, input=password, capture_output=True, text=True, timeout=60)
        assert done.returncode == status, done.stderr
    assert "cannot be read (HTTP Error 401: Unauthorized). Run this script again." in done.stderr


def aws(repository_exists: bool) -> str:
    return f"""case "$*" in
*get-caller-identity*) echo 210987654321 ;;
*describe-repositories*) exit {0 if repository_exists else 254} ;;
*get-login-password*) echo secret ;;
esac"""


@pytest.mark.parametrize("repository_exists", [True, False])
def test_pushing_logs_in_creates_what_is_missing_tags_and_pushes(bin: Bin, repository_exists: bool) -> None:
    bin.add("docker", f'case "$*" in *login*) cat >> {bin.log} ;; esac')
    bin.add("aws", aws(repository_exists))
    bin.add("python3")
    done = bin.run("build_and_push.sh", "us-west-2", "team/semseg", IMAGE)
    assert done.returncode == 0, done.stderr
    create = ["aws ecr create-repository --region us-west-2 --repository-name team/semseg"]
    assert [call for call in bin.calls() if "create-repository" in call] == (
        [] if repository_exists else [f"{create[0]} --image-scanning-configuration scanOnPush=true"]
    )
    assert f"docker login --username AWS --password-stdin {ADDRESS}" in bin.calls()
    assert bin.calls()[-3:] == [
        f"docker tag {IMAGE} {ADDRESS}/team/semseg:cpu",
        f"docker push {ADDRESS}/team/semseg:cpu",
        f"python3 local_test/check_manifest.py {ADDRESS}/team/semseg:cpu",
    ]
    assert "secret" in bin.calls()  # through the pipe, not on the command line
    assert done.stdout.splitlines()[-1] == f"image_uri={ADDRESS}/team/semseg:cpu"


def test_a_dry_run_needs_no_account_and_does_nothing(bin: Bin) -> None:
    bin.add("docker")
    bin.add("aws")
    done = bin.run("build_and_push.sh", "--dry-run", "cn-north-1", "semseg")
    assert done.returncode == 0, done.stderr
    assert not bin.log.exists()
    registry = "123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn"
    assert [line.strip() for line in done.stdout.splitlines()] == [
        "local_test/build_image.sh Dockerfile sagemaker-semantic-segmentation:gpu",
        "aws ecr create-repository --region cn-north-1 --repository-name semseg "
        "--image-scanning-configuration scanOnPush=true",
        f"aws ecr get-login-password --region cn-north-1 | docker login --username AWS --password-stdin {registry}",
        f"docker tag sagemaker-semantic-segmentation:gpu {registry}/semseg:gpu",
        f"docker push {registry}/semseg:gpu",
        f"image_uri={registry}/semseg:gpu",
    ]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["us-west-2"], "two or three arguments are needed, not 1"),
        (["uswest", "semseg"], "REGION must be like us-west-2, not 'uswest'"),
        (["us-west-2", "Sem Seg"], "NAME must be a repository's name"),
        (["us-west-2", "semseg", "image"], "IMAGE must end in :cpu or :gpu, not 'image'"),
        (["us-west-2;ls", "semseg"], "REGION must be like us-west-2"),
    ],
)
def test_wrong_push_arguments_are_named(bin: Bin, arguments: list[str], reason: str) -> None:
    done = bin.run("build_and_push.sh", "--dry-run", *arguments)
    assert done.returncode == 2
    assert reason in done.stderr and "usage:" in done.stderr


def test_a_failed_login_pushes_nothing(bin: Bin) -> None:
    bin.add("docker", 'case "$*" in *login*) exit 1 ;; esac')
    bin.add("aws", aws(True))
    done = bin.run("build_and_push.sh", "us-west-2", "semseg")
    assert done.returncode != 0
    assert not [call for call in bin.calls() if "push" in call]
