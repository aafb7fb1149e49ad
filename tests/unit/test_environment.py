"""The platform's files and variables, as a job and a server read them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from container.environment import Environment
from container.errors import ClientError
from container.serve_settings import ServeSettings


def configure(root: Path, **files: object) -> None:
    config = root / "input" / "config"
    config.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (config / f"{name}.json").write_text(content if isinstance(content, str) else json.dumps(content))


def test_reads_what_the_platform_writes(tmp_path: Path) -> None:
    configure(
        tmp_path,
        hyperparameters={"num_classes": "21"},
        resourceconfig={"current_host": "algo-1", "hosts": ["algo-1"], "network_interface_name": "eth0"},
        inputdataconfig={
            "train": {
                "TrainingInputMode": "Pipe",
                "ContentType": "application/x-image",
                "RecordWrapperType": "RecordIO",
            },
        },
    )
    environment = Environment.read(tmp_path)
    assert environment.hyperparameters == {"num_classes": 21}
    assert environment.current_host == "algo-1"
    train = environment.channels["train"]
    assert (train.path, train.input_mode) == (tmp_path / "input" / "data" / "train", "Pipe")
    assert (train.record_wrapper, train.content_type) == ("RecordIO", "application/x-image")


def test_a_plain_local_run_takes_directories_for_channels(tmp_path: Path) -> None:
    configure(tmp_path, hyperparameters={})
    for name in ("train", "train_annotation", ".cache"):
        (tmp_path / "input" / "data" / name).mkdir(parents=True)
    environment = Environment.read(tmp_path)
    assert [(channel.name, channel.input_mode) for channel in environment.channels.values()] == [
        ("train", "File"),
        ("train_annotation", "File"),
    ]
    assert environment.hosts == ("algo-1",)


def test_each_root_is_read_afresh(tmp_path: Path) -> None:
    for name in ("first", "second"):
        configure(tmp_path / name, hyperparameters={"algorithm": name})
    assert [Environment.read(tmp_path / name).hyperparameters["algorithm"] for name in ("first", "second")] == [
        "first",
        "second",
    ]


def test_a_missing_job_is_named(tmp_path: Path) -> None:
    with pytest.raises(ClientError, match=r"there is no .*/input/config/hyperparameters\.json: mount"):
        Environment.read(tmp_path / "nowhere")


def test_broken_json_is_named(tmp_path: Path) -> None:
    configure(tmp_path, hyperparameters={}, inputdataconfig="{")
    with pytest.raises(ClientError, match="read_input_data_config found no valid JSON"):
        Environment.read(tmp_path)


def test_server_settings_have_the_platforms_names() -> None:
    settings = ServeSettings.read(
        {
            "SAGEMAKER_BASE_DIR": "/somewhere",
            "SAGEMAKER_BIND_TO_PORT": "9000",
            "MODEL_SERVER_WORKERS": "3",
            "SAGEMAKER_MODEL_SERVER_TIMEOUT": "30",
            "SAGEMAKER_CONTAINER_LOG_LEVEL": "10",
            "MAX_PIXELS": "1000",
        }
    )
    assert (settings.model_dir, settings.port, settings.workers) == (Path("/somewhere/model"), 9000, 3)
    assert (settings.timeout, settings.log_level, settings.max_pixels) == (30, "debug", 1000)


def test_server_defaults() -> None:
    settings = ServeSettings.read({})
    assert (settings.model_dir, settings.port, settings.workers) == (Path("/opt/ml/model"), 8080, 1)
    assert (settings.timeout, settings.log_level, settings.max_pixels) == (60, "info", 40_000_000)


@pytest.mark.parametrize("value", ["0", "-1", "many", "1.5"])
def test_a_wrong_setting_is_named(value: str) -> None:
    with pytest.raises(ClientError, match=f"MAX_PIXELS must be a whole number above 0, not '{value}'"):
        ServeSettings.read({"MAX_PIXELS": value})
