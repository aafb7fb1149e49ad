"""The channel `label_map`: which file is whose, and what is missing or left over is said."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from container.data.labels.channel import check_label_maps, read_label_map
from container.environment import Channel
from container.errors import ClientError

USED = ["train", "validation"]


def channel(folder: Path, **files: str) -> dict[str, Channel]:
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / f"{name}.json").write_text(text)
    return {"label_map": Channel("label_map", folder)}


def test_each_channel_has_a_map_of_its_own(tmp_path: Path) -> None:
    given = channel(
        tmp_path / "label_map", train_label_map='{"map": {"0": 1}}', validation_label_map='{"map": {"0": 2}}'
    )
    check_label_maps(given, USED)
    assert read_label_map(given, "train").labels == {1: 0}
    assert read_label_map(given, "validation").labels == {2: 0}
    assert read_label_map({}, "train").content == {"scale": 1}


def test_channel_without_an_expected_file_is_rejected_with_its_files(tmp_path: Path) -> None:
    given = channel(tmp_path / "label_map", label_map="{}", other="{}")
    with pytest.raises(ClientError) as caught:
        check_label_maps(given, USED)
    assert str(caught.value) == (
        "channel label_map does not contain train_label_map.json or validation_label_map.json. Rename its files, or "
        "remove the channel. It contains: label_map.json; other.json"
    )


def test_default_of_a_channel_without_a_map_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    given = channel(tmp_path / "label_map", train_label_map='{"scale": 10}', extra="{}")
    with caplog.at_level(logging.WARNING):
        check_label_maps(given, USED)
    assert [record.getMessage() for record in caplog.records] == [
        "channel label_map does not contain validation_label_map.json. The job uses {'scale': 1} for the annotations "
        "of channel validation.",
        f"{tmp_path}/label_map/extra.json is skipped. The label maps of this job are train_label_map.json, "
        "validation_label_map.json.",
    ]


def test_a_file_in_a_folder_is_found_and_two_are_refused(tmp_path: Path) -> None:
    given = channel(tmp_path / "label_map/label_map", train_label_map='{"scale": 7}')
    given = {"label_map": Channel("label_map", tmp_path / "label_map")}
    assert read_label_map(given, "train").content == {"scale": 7}
    (tmp_path / "label_map/train_label_map.json").write_text('{"scale": 8}')
    with pytest.raises(ClientError, match=r"channel label_map contains 2 files train_label_map\.json. Keep one: "):
        read_label_map(given, "train")


def test_pipe_mode_is_rejected_with_a_fix(tmp_path: Path) -> None:
    given = {"label_map": Channel("label_map", tmp_path / "label_map", "Pipe")}
    with pytest.raises(ClientError, match=r"channel label_map is in Pipe mode, .*\. Set its TrainingInputMode to File"):
        check_label_maps(given, USED)
