"""The platform's files and variables, as a job and a server read them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from container.environment import Environment
from container.errors import ClientError
from container.serving.settings import ServeSettings


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
    assert environment.hyperparameters == {"num_classes": "21"}  # what it means is for `hyperparameters.load`
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
    with pytest.raises(ClientError, match=r"/input/config/hyperparameters\.json does not exist\. Mount"):
        Environment.read(tmp_path / "nowhere")


FILES = ["hyperparameters", "inputdataconfig", "resourceconfig"]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", " is empty. It must contain one JSON object."),
        (b" \n", " is empty. It must contain one JSON object."),
        (b"{", " is not valid JSON: Expecting property name"),
        (b'{"a": 1} {"b": 2}', " is not valid JSON: Extra data"),
        (b'{"a": "x\ny"}', " is not valid JSON: Invalid control character"),
        (b'{"a": 1, "b": 2, "a": 3}', " is not valid JSON: it contains 'a' twice"),
        (b'{"a": ' + b"9" * 5000 + b"}", " is not valid JSON: it contains a number of 5000 digits"),
        (b'{"a": ' + b"[" * 100000, " is not usable: the JSON is nested too deeply"),
        (b"[]", " contains a list. It must contain one JSON object."),
        (b"null", " contains null. It must contain one JSON object."),
        (b"3", " contains a number. It must contain one JSON object."),
        (b'"x"', " contains a string. It must contain one JSON object."),
        (b"true", " contains true or false. It must contain one JSON object."),
        (b'{"a": "stra\xdfe"}', " is not UTF-8 (byte 0xdf at 11). Save it as UTF-8."),
        ('{"a": 1}'.encode("utf-16"), " is encoded as UTF-16 or UTF-32. Save it as UTF-8."),
        ('{"a": 1}'.encode("utf-32-be"), " is not valid JSON"),
        (b"\x80\x04}", " is not UTF-8 (byte 0x80 at 0)"),
    ],
)
def test_a_malformed_file_is_named_with_what_is_wrong(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    configure(tmp_path, hyperparameters={})
    path = tmp_path / "input/config" / f"{name}.json"
    path.write_bytes(content)
    with pytest.raises(ClientError) as caught:
        Environment.read(tmp_path)
    assert str(caught.value).startswith(f"{path}{said}")


@pytest.mark.parametrize("name", FILES)
def test_a_directory_in_a_files_place_is_named(tmp_path: Path, name: str) -> None:
    configure(tmp_path, **({} if name == "hyperparameters" else {"hyperparameters": {}}))
    path = tmp_path / "input/config" / f"{name}.json"
    path.mkdir()
    with pytest.raises(ClientError) as caught:
        Environment.read(tmp_path)
    assert str(caught.value) == f"{path} is a directory. Replace it with a file that contains one JSON object."


def test_a_byte_order_mark_is_no_fault(tmp_path: Path) -> None:
    configure(tmp_path)
    for name, content in (
        ("hyperparameters", {"num_classes": "5"}),
        ("inputdataconfig", {"train": {"TrainingInputMode": "FastFile"}}),
        ("resourceconfig", {"current_host": "algo-7", "hosts": ["algo-7"]}),
    ):
        (tmp_path / f"input/config/{name}.json").write_bytes(b"\xef\xbb\xbf" + json.dumps(content).encode())
    environment = Environment.read(tmp_path)
    assert environment.hyperparameters == {"num_classes": "5"}
    assert environment.channels["train"].input_mode == "FastFile"
    assert environment.hosts == ("algo-7",)


@pytest.mark.parametrize(
    ("config", "hosts"),
    [
        ({}, ("algo-1", ("algo-1",))),
        ({"current_host": "a"}, ("a", ("a",))),
        ({"hosts": ["b"]}, ("b", ("b",))),
        ({"current_host": "b", "hosts": ["a", "b"], "instance_groups": None}, ("b", ("a", "b"))),
    ],
)
def test_hosts_are_completed_where_that_is_plain(tmp_path: Path, config: object, hosts: object) -> None:
    configure(tmp_path, hyperparameters={}, resourceconfig=config)
    environment = Environment.read(tmp_path)
    assert (environment.current_host, environment.hosts) == hosts


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"current_host": "algo-1", "hosts": None}, "hosts must be a list of host names, not null"),
        ({"current_host": "algo-1", "hosts": "algo-1"}, 'hosts must be a list of host names, not "algo-1"'),
        ({"current_host": "algo-1", "hosts": []}, "hosts must be a list of host names, not []"),
        ({"current_host": "algo-1", "hosts": [1]}, "hosts must be a list of host names, not [1]"),
        ({"current_host": "algo-1", "hosts": {"algo-1": 1}}, "hosts must be a list of host names, not {"),
        ({"current_host": None}, "hosts must be a list of host names, not [null]"),
        ({"hosts": ["a", "b"]}, "current_host must be one of hosts (a, b), not null"),
        ({"current_host": "c", "hosts": ["a", "b"]}, 'current_host must be one of hosts (a, b), not "c"'),
        ({"current_host": ["a"], "hosts": ["a", "b"]}, 'current_host must be one of hosts (a, b), not ["a"]'),
    ],
)
def test_hosts_that_make_no_sense_are_named(tmp_path: Path, config: object, said: str) -> None:
    configure(tmp_path, hyperparameters={}, resourceconfig=config)
    with pytest.raises(ClientError) as caught:
        Environment.read(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path}/input/config/resourceconfig.json: {said}")


@pytest.mark.parametrize(
    ("entry", "mode", "wrapper"),
    [
        ({}, "File", "None"),
        ({"TrainingInputMode": None, "RecordWrapperType": None, "ContentType": None}, "File", "None"),
        ({"TrainingInputMode": "", "RecordWrapperType": ""}, "File", "None"),
        ({"TrainingInputMode": "file", "RecordWrapperType": "none"}, "File", "None"),
        ({"TrainingInputMode": "FASTFILE"}, "FastFile", "None"),
        ({"TrainingInputMode": "pipe", "RecordWrapperType": "RECORDIO"}, "Pipe", "RecordIO"),
    ],
)
def test_a_channel_is_read_whatever_the_case(tmp_path: Path, entry: object, mode: str, wrapper: str) -> None:
    configure(tmp_path, hyperparameters={}, inputdataconfig={"train": entry})
    train = Environment.read(tmp_path).channels["train"]
    assert (train.input_mode, train.record_wrapper, train.content_type) == (mode, wrapper, None)


def test_all_faults_of_all_channels_come_in_one_message(tmp_path: Path) -> None:
    channels = {
        "a": None,
        "b": 3,
        "c": ["File"],
        "d": {"TrainingInputMode": "Stream", "RecordWrapperType": 1},
        "e": {"TrainingInputMode": ["File"]},
        "f": {"ContentType": ["image/png"]},
        "g": {"TrainingInputMode": "File"},
    }
    configure(tmp_path, hyperparameters={}, inputdataconfig=channels)
    with pytest.raises(ClientError) as caught:
        Environment.read(tmp_path)
    assert caught.value.message == f"{tmp_path}/input/config/inputdataconfig.json does not describe the channels"
    assert caught.value.details == (
        "channel a is null. It must be an object",
        "channel b is a number. It must be an object",
        "channel c is a list. It must be an object",
        'channel d has TrainingInputMode "Stream". Use File or FastFile or Pipe',
        "channel d has RecordWrapperType 1. Use None or RecordIO",
        'channel e has TrainingInputMode ["File"]. Use File or FastFile or Pipe',
        'channel f has ContentType ["image/png"]. It must be a string',
    )


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
    with pytest.raises(ClientError, match=f"MAX_PIXELS must be an integer above 0, not '{value}'"):
        ServeSettings.read({"MAX_PIXELS": value})
