"""The SageMaker Python SDK in local mode, without an account: IMAGE sets the image (default: the CPU image)."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import PROGRAM, job_factory
from tests.container.conftest import Image, free_port

HERE = Path(__file__).parent
IMAGE = os.environ.get("IMAGE", "sagemaker-semantic-segmentation:cpu")
CHANNELS = ("train", "train_annotation", "validation", "validation_annotation")

Run = Callable[..., str]


def sdk() -> str:
    """Return the major version of the installed SDK. Each version has its own environment."""
    try:
        return importlib.metadata.version("sagemaker").split(".")[0]
    except importlib.metadata.PackageNotFoundError:
        return ""


OF_TWO = ["test_local_mode.py", "test_sdk2_algorithm.py"]
OF_THREE = [path.name for path in HERE.glob("test_*.py") if path.name not in OF_TWO]
collect_ignore = {"2": OF_THREE, "3": OF_TWO}.get(sdk(), OF_TWO + OF_THREE)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent == HERE:
            item.add_marker(pytest.mark.sagemaker)


def docker_is_running() -> bool:
    try:
        return subprocess.run(["docker", "version"], capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


@pytest.fixture(scope="session")
def local_settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """Set the environment of the SDK, and return the settings of a `LocalSession`."""
    path = [str(Path(sys.executable).parent), os.environ["PATH"]]
    if not docker_is_running():
        path.insert(0, str(HERE))  # the docker command for podman
    os.environ.update(
        PATH=":".join(path),
        AWS_ACCESS_KEY_ID="none",
        AWS_SECRET_ACCESS_KEY="none",
        AWS_DEFAULT_REGION="us-west-2",
        AWS_EC2_METADATA_DISABLED="true",
        SAGEMAKER_USER_CONFIG_OVERRIDE=str(HERE / "sm-config.yaml"),
        SAGEMAKER_SUPPRESS_V2_WARNING="1",
    )
    root = tmp_path_factory.mktemp("containers")
    return {"local": {"local_code": True, "container_root": str(root), "serving_port": free_port()}}


@pytest.fixture(scope="session")
def home(local_settings: dict[str, object], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Home directory with the settings of the `LocalSession` of other processes."""
    home = tmp_path_factory.mktemp("home")
    (home / ".sagemaker").mkdir()
    (home / ".sagemaker/config.yaml").write_text(json.dumps(local_settings))
    return home


@pytest.fixture(scope="session")
def run(home: Path) -> Run:
    """Return a function that runs a file of examples/ in a process and returns its output."""

    def run(name: str, *arguments: object, environment: dict[str, str] | None = None, fails: bool = False) -> str:
        command = [sys.executable, str(PROGRAM / "examples" / name), *map(str, arguments)]
        done = subprocess.run(
            command,
            cwd=home,
            env={**(environment or os.environ), "HOME": str(home)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
        )
        assert bool(done.returncode) == fails, done.stdout
        return done.stdout

    return run


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of the four channels: four training images, two for validation."""
    root = tmp_path_factory.mktemp("job")
    job_factory(root)(train=4, validation=2, epochs="2", backbone="resnet-18")
    return root / "input/data"


@pytest.fixture(scope="session")
def hyperparameters(data: Path) -> list[str]:
    """Hyperparameters of a small job, as NAME=VALUE."""
    values = json.loads((data.parent / "config/hyperparameters.json").read_text())
    return [f"{name}={value}" for name, value in values.items()]


@dataclasses.dataclass(frozen=True)
class Trained:
    """Output directory and log of examples/sdk3_train.py."""

    output: Path
    log: str

    @property
    def model(self) -> Path:
        """Directory of the extracted model."""
        return self.output / "artifacts/model"

    @property
    def archive(self) -> Path:
        return self.output / "compressed_artifacts/model.tar.gz"

    def report(self, name: str) -> dict[str, Any]:
        with tarfile.open(self.output / "compressed_artifacts/output.tar.gz") as archive:
            content = archive.extractfile(f"data/{name}")
            assert content
            return dict(json.load(content))


@pytest.fixture(scope="session")
def trained(run: Run, home: Path, data: Path, hyperparameters: list[str]) -> Trained:
    return Trained(home / "output", run("sdk3_train.py", IMAGE, data, *hyperparameters))


@pytest.fixture
def photo(data: Path) -> Path:
    """A JPEG of 48 by 40 pixels."""
    return data / "validation/validation-0.jpg"


if sdk() == "3":
    from tests.sagemaker.account import MotoAccount, start_account

    @pytest.fixture
    def account(local_settings: dict[str, object]) -> Iterator[MotoAccount]:
        """An account for one test, which fails if the service model rejects a request."""
        with start_account() as account:
            yield account
            assert account.errors == []

    @pytest.fixture(scope="session")
    def server(trained: Trained) -> Iterator[str]:
        """The URL of a container that serves the trained model."""
        with Image("docker", IMAGE).serving(trained.model) as container:
            container.wait_until_ready()
            yield container.url

    @pytest.fixture(scope="session")
    def server_of_many(trained: Trained) -> Iterator[str]:
        """The URL of a container of a multi-model endpoint; the trained model is in /models/one and /models/two."""
        mounts = [word for name in ("one", "two") for word in ("--volume", f"{trained.model}:/models/{name}:ro")]
        options = ("--env", "SAGEMAKER_MULTI_MODEL=true", *mounts)
        with Image("docker", IMAGE).started("serve", options=options, port=True) as container:
            container.wait_until_ready()
            yield container.url
