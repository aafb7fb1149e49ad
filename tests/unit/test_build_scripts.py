"""The scripts that build and push images, with stand-ins for the engines and for AWS's command line."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SETTINGS = ("BASE_IMAGE", "BUILD_OPTIONS", "PRETRAINED", "PRETRAINED_MIRROR")
ADDRESS = "210987654321.dkr.ecr.us-west-2.amazonaws.com"


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
        return [call for call in self.log.read_text().splitlines() if not call.endswith(" version")]

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
    assert call.startswith("docker build -f Dockerfile.cpu -t name:cpu --build-arg PRETRAINED=resnet-50 ")
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
    assert call.startswith("buildah build -f Dockerfile -t name:gpu --build-arg PRETRAINED=resnet-50,resnet-101 ")
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
    done = bin.run("build_and_push.sh", "us-west-2", "team/semseg", "semantic-segmentation:cpu")
    assert done.returncode == 0, done.stderr
    create = ["aws ecr create-repository --region us-west-2 --repository-name team/semseg"]
    assert [call for call in bin.calls() if "create-repository" in call] == (
        [] if repository_exists else [f"{create[0]} --image-scanning-configuration scanOnPush=true"]
    )
    assert f"docker login --username AWS --password-stdin {ADDRESS}" in bin.calls()
    assert bin.calls()[-2:] == [
        f"docker tag semantic-segmentation:cpu {ADDRESS}/team/semseg:cpu",
        f"docker push {ADDRESS}/team/semseg:cpu",
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
        "local_test/build_image.sh Dockerfile semantic-segmentation:gpu",
        "aws ecr create-repository --region cn-north-1 --repository-name semseg "
        "--image-scanning-configuration scanOnPush=true",
        f"aws ecr get-login-password --region cn-north-1 | docker login --username AWS --password-stdin {registry}",
        f"docker tag semantic-segmentation:gpu {registry}/semseg:gpu",
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
