"""SageMaker's SDK in local mode: no account, no network, and the built image; IMAGE names another than the CPU one."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
collect_ignore_glob = [] if importlib.util.find_spec("sagemaker") else ["test_*.py"]  # it has an environment of its own


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent == HERE:
            item.add_marker(pytest.mark.sagemaker)


def docker_answers() -> bool:
    try:
        return subprocess.run(["docker", "version"], capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


@pytest.fixture(scope="session")
def local_settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """Prepare what the SDK reads of its surroundings, and return the settings of a `LocalSession`."""
    path = [str(Path(sys.executable).parent), os.environ["PATH"]]
    if not docker_answers():
        path.insert(0, str(HERE))  # the stand-in
    os.environ.update(
        PATH=":".join(path),
        AWS_ACCESS_KEY_ID="none",
        AWS_SECRET_ACCESS_KEY="none",
        AWS_DEFAULT_REGION="us-west-2",
        AWS_EC2_METADATA_DISABLED="true",
        SAGEMAKER_USER_CONFIG_OVERRIDE=str(HERE / "sm-config.yaml"),
        SAGEMAKER_SUPPRESS_V2_WARNING="1",
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    root = tmp_path_factory.mktemp("containers")
    return {"local": {"local_code": True, "container_root": str(root), "serving_port": port}}
