"""The scripts of local_test with the image, as a person runs them."""

from __future__ import annotations

import os
import signal
import subprocess
import tarfile
from pathlib import Path

import pytest
from PIL import Image as Pillow

from local_test.predict import ping
from tests.conftest import job_factory, wait_until
from tests.container.conftest import PATIENCE, Image, free_port


def run(tree: Path, script: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "TEST_DIR": str(tree / "job"), **variables}
    command = [str(tree / "local_test" / script), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)


@pytest.mark.parametrize("options", [[], ["--pipe"]])
def test_train_serve_and_predict(image: Image, tree: Path, options: list[str]) -> None:
    job = tree / "job"
    job.mkdir()
    job_factory(job)(train=2, validation=1)
    done = run(tree, "train_local.sh", *options, image.name)
    assert done.returncode == 0, done.stdout + done.stderr
    with tarfile.open(job / "model.tar.gz") as archive:
        assert {os.path.normpath(name) for name in archive.getnames()} >= {"hyperparams.json", "model_best.params"}

    port = str(free_port())
    environment = {**os.environ, "TEST_DIR": str(job), "PORT": port}
    with (tree / "log").open("wb") as log:
        server = subprocess.Popen(
            [str(tree / "local_test/serve_local.sh"), image.name], env=environment, stdout=log, stderr=log
        )
    log_text = (tree / "log").read_text

    def is_ready() -> bool:
        assert server.poll() is None, log_text()
        return ping(f"http://localhost:{port}")

    try:
        wait_until(is_ready, PATIENCE, log_text)
        photo = job / "input/data/validation/validation-0.jpg"
        done = run(tree, "predict.sh", str(photo), PORT=port)
        assert done.returncode == 0, done.stderr
        assert_mask_file(Path(done.stdout.splitlines()[0]))
    finally:
        server.send_signal(signal.SIGTERM)
        assert server.wait(timeout=60) == 0, log_text()


def assert_mask_file(path: Path) -> None:
    """The script draws masks in colors: indices are what counts."""
    with Pillow.open(path) as mask:
        assert mask.size == (48, 40)
        assert mask.getextrema()[1] < 2


def test_an_image_that_is_not_there_fails_the_script(tree: Path) -> None:
    (tree / "job").mkdir()
    job_factory(tree / "job")(train=1, validation=1)
    done = run(tree, "train_local.sh", "localhost/no-such-image:none")
    assert done.returncode != 0
    assert not (tree / "job/model.tar.gz").exists()
