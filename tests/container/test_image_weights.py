"""An image with weights baked in, which it got from a source of the test's own; and one that could not get them."""

from __future__ import annotations

import functools
import http.server
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import PROGRAM, JobFactory
from tests.container.conftest import Image, mounted
from tests.mx.published import random_weights, write_timm

TAG = "sagemaker-semantic-segmentation-weights:cpu"


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve timm's file of resnet-34, the one whose hash is not published, from this machine."""
    folder = tmp_path_factory.mktemp("mirror")
    write_timm(folder / "resnet34.gluon_in1k.safetensors", random_weights("resnet-34"))
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def build(mirror: str, pretrained: str, tag: str) -> subprocess.CompletedProcess[str]:
    """Build the CPU image as `make image-cpu` does, with the mirror in place of every source."""
    variables = {**os.environ, "PRETRAINED": pretrained, "PRETRAINED_MIRROR": mirror}
    command = [str(PROGRAM / "local_test/build_image.sh"), "Dockerfile.cpu", tag, "--network", "host"]
    return subprocess.run(command, env=variables, capture_output=True, text=True, timeout=1200)


def test_a_job_starts_from_baked_weights_without_a_network(
    image: Image, mirror: str, make_job: JobFactory, tmp_path: Path
) -> None:
    done = build(mirror, "resnet-34", TAG)
    assert done.returncode == 0, done.stdout + done.stderr
    try:
        root = make_job(train=2, validation=1, backbone="resnet-34", use_pretrained_model="True")
        job = Image(image.engine, TAG).run("train", options=("--network", "none", *mounted(root)))
        assert job.returncode == 0, job.stdout + job.stderr
        assert "Loaded the initial weights of the backbone from /opt/program/pretrained/resnet34_v1b-" in job.stdout
    finally:
        subprocess.run([image.engine, "rmi", "--force", TAG], stdout=subprocess.DEVNULL, timeout=60)


def test_a_build_without_a_way_to_the_weights_ends_early_with_the_remedy(image: Image, mirror: str) -> None:
    started = time.monotonic()
    done = build(mirror, "resnet-101", "sagemaker-semantic-segmentation-unfetched:cpu")
    assert done.returncode != 0
    assert time.monotonic() - started < 240  # not after everything else
    told = done.stdout + done.stderr
    assert "the ImageNet weights of resnet-101 could not be downloaded" in told
    for way in ("--from FILE", "pretrained channel", "PRETRAINED_MIRROR", "PRETRAINED=none"):
        assert way in told
