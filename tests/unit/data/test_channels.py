"""Channels: what is missing, of another kind or left over is named before anything is read."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path

import pytest

from container.data.channels import check_channels
from container.environment import Environment
from container.errors import ClientError
from tests.conftest import JobFactory


def test_missing_channels_are_all_named(make_job: JobFactory) -> None:
    root = make_job()
    (root / "input/data/validation").rename(root / "input/data/valid")
    (root / "input/data/train_annotation").rename(root / "input/data/annotations")
    with pytest.raises(ClientError) as caught:
        check_channels(Environment.read(root))
    given = "annotations, train, valid, validation_annotation"
    assert str(caught.value) == (
        f"The input channels are not valid: channel train_annotation is missing. The job has {given}; "
        f"channel validation is missing. The job has {given}"
    )


@pytest.mark.parametrize(
    ("channel", "content_type"),
    [
        ("train", "image/jpg"),
        ("train", "IMAGE/JPEG; q=0.9"),
        ("train", " application/X-Image ;charset=binary"),
        ("train_annotation", "image/png"),
        ("train", "application/octet-stream"),
        ("train_annotation", "binary/octet-stream"),
        ("train", ""),
        ("train", None),
        ("label_map", "application/json"),
        ("model", "application/x-sagemaker-model"),
        ("model", "Application/X-SageMaker-Model; version=1"),
        ("model", "application/octet-stream"),
    ],
)
def test_a_content_type_that_does_no_harm_is_taken(
    make_job: JobFactory, channel: str, content_type: str | None
) -> None:
    root = make_job()
    (root / "input/data/model").mkdir()
    given = ("train", "train_annotation", "validation", "validation_annotation", channel)
    config = {name: {"ContentType": content_type if name == channel else None} for name in given}
    (root / "input/config/inputdataconfig.json").write_text(json.dumps(config))
    check_channels(Environment.read(root))


@pytest.mark.parametrize(("channel", "content_type"), [("model", "image/jpeg"), ("train", "image/jpeg+x")])
def test_another_channels_content_type_is_refused(make_job: JobFactory, channel: str, content_type: str) -> None:
    root = make_job()
    given = ("train", "train_annotation", "validation", "validation_annotation", channel)
    config = {name: {"ContentType": content_type if name == channel else None} for name in given}
    (root / "input/config/inputdataconfig.json").write_text(json.dumps(config))
    with pytest.raises(ClientError, match=rf"channel {channel} has ContentType {re.escape(content_type)}\. Use "):
        check_channels(Environment.read(root))


@pytest.mark.parametrize(
    ("channel", "mode", "said"),
    [
        (
            "model",
            "Pipe",
            "channel model is in Pipe mode, but its weights are files. Set its TrainingInputMode to File",
        ),
        ("model", "File", "channel model: the directory "),
        ("pretrained", "Pipe", "channel pretrained is in Pipe mode, but its weights are files. Set its TrainingInput"),
        ("pretrained", "File", "channel pretrained: the directory "),
    ],
)
def test_a_channel_of_weights_that_is_no_directory_is_named(
    make_job: JobFactory, channel: str, mode: str, said: str
) -> None:
    root = make_job()
    given = ("train", "train_annotation", "validation", "validation_annotation", channel)
    config = {name: {"TrainingInputMode": mode if name == channel else "File"} for name in given}
    (root / "input/config/inputdataconfig.json").write_text(json.dumps(config))
    with pytest.raises(ClientError, match=f"^The input channels are not valid: {said}"):
        check_channels(Environment.read(root))


def test_an_unsupported_content_type_is_named(make_job: JobFactory) -> None:
    root = make_job()
    config = {
        name: {"TrainingInputMode": "File", "ContentType": "text/csv" if name == "train" else "image/png"}
        for name in ("train", "train_annotation", "validation", "validation_annotation")
    }
    (root / "input/config/inputdataconfig.json").write_text(json.dumps(config))
    with pytest.raises(
        ClientError, match=r"channel train has ContentType text/csv\. Use application/x-image or image/jpeg"
    ):
        check_channels(Environment.read(root))


def configured(root: Path, **modes: str) -> Environment:
    """Give each channel its input mode, in RecordIO where it is Pipe."""
    config = {name: {"TrainingInputMode": mode, "RecordWrapperType": "RecordIO"} for name, mode in modes.items()}
    (root / "input/config/inputdataconfig.json").write_text(json.dumps(config))
    return Environment.read(root)


def test_channels_that_are_not_used_are_named(make_job: JobFactory, caplog: pytest.LogCaptureFixture) -> None:
    root = make_job()
    environment = configured(
        root,
        train="Pipe",
        train_annotation="Pipe",
        validation="File",
        validation_annotation="File",
        test_annotation="File",
        weights="File",
    )
    with caplog.at_level(logging.WARNING):
        check_channels(environment)
    assert [record.getMessage() for record in caplog.records] == [
        "channel test_annotation is ignored, because the job has no channel test",
        "channel train_annotation is ignored, because channel train is in Pipe mode, and its stream contains the "
        "annotations",
        "channel weights is ignored. The channels of this algorithm are train, validation, test, train_annotation, "
        "validation_annotation, test_annotation, label_map, model, pretrained",
    ]


def test_streamed_annotations_of_files_are_refused(make_job: JobFactory) -> None:
    environment = configured(
        make_job(), train="File", train_annotation="Pipe", validation="File", validation_annotation="File"
    )
    with pytest.raises(
        ClientError, match=r"channel train_annotation is in Pipe mode, but channel train is not\. Set its"
    ):
        check_channels(environment)
