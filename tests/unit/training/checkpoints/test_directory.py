"""The checkpoint directory: the newest whole one is found, two are kept, and nothing of others is touched."""

from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path
from typing import Any

import pytest

from container.artifact import model_directory
from container.errors import ClientError, PlatformError
from container.training.checkpoints.directory import CheckpointDirectory
from container.training.checkpoints.progress import Progress
from tests.conftest import SmallDisk

REST = {"carried": [], "best": None}


def write(checkpoints: CheckpointDirectory, progress: Progress, best: str | None = None) -> None:
    def make(folder: Path) -> tuple[list[str], dict[str, Any]]:
        for name in ("weights.params", "optimizer.params"):
            (folder / name).write_text(f"{name} of {progress.name}")
        return ["weights.params", "optimizer.params"], {
            "progress": dataclasses.asdict(progress),
            "identity": {"job": "job"},
            "optimizer": {"updates": 7},
            "carried": [],
            "best": best,
        }

    checkpoints.write(progress.name, make)


def at(epoch: int, iteration: int = 0) -> Progress:
    return Progress(iterations=9, epoch=epoch, iteration=iteration, history=[{"epoch": 0, "mIOU": 0.5}])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A directory with the checkpoints 1-0, 2-0 (removed by then), 9-5 and 10-2."""
    made = CheckpointDirectory(tmp_path)
    for epoch, iteration in ((1, 0), (2, 0), (9, 5), (10, 2)):
        write(made, at(epoch, iteration))
    return tmp_path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_two_newest_are_kept_and_the_newest_is_found(folder: Path) -> None:
    assert names(folder) == ["10-2", "9-5"]
    found = CheckpointDirectory(folder).newest()
    assert found and found.folder == folder / "10-2"
    assert found.progress == at(10, 2)
    assert (found.optimizer, found.best, found.identity) == ({"updates": 7}, None, {"job": "job"})


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda path: (path / "weights.params").unlink(), "weights.params is missing"),
        (lambda path: (path / "optimizer.params").write_text("cut"), "optimizer.params has 3 bytes instead of 24"),
        (lambda path: (path / "manifest.json").write_text('{"files": '), "manifest.json is not readable"),
        (lambda path: (path / "manifest.json").unlink(), "manifest.json is missing"),
    ],
)
def test_a_damaged_one_is_passed_over_for_the_one_before(
    folder: Path, caplog: pytest.LogCaptureFixture, damage: Any, reason: str
) -> None:
    damage(folder / "10-2")
    with caplog.at_level(logging.WARNING):
        found = CheckpointDirectory(folder).newest()
    assert found and found.folder == folder / "9-5"
    assert f"The checkpoint {folder}/10-2 is skipped: {reason}" in caplog.text


def test_without_a_whole_one_there_is_none(folder: Path, tmp_path: Path) -> None:
    for each in ("10-2", "9-5"):
        (folder / each / "weights.params").unlink()
    assert CheckpointDirectory(folder).newest() is None
    assert CheckpointDirectory(tmp_path / "none").newest() is None


def test_a_later_start_counts_on_and_replaces_what_was_damaged(folder: Path) -> None:
    (folder / "10-2" / "weights.params").unlink()
    later = CheckpointDirectory(folder)
    assert later.newest()
    write(later, at(9, 8))
    assert names(folder) == ["9-5", "9-8"]
    write(later, at(10, 2))
    found = CheckpointDirectory(folder).newest()
    assert names(folder) == ["10-2", "9-8"]
    assert found and found.progress == at(10, 2)


def test_a_pass_begun_anew_is_newer_than_a_later_place_in_the_pass_before(folder: Path) -> None:
    later = CheckpointDirectory(folder)
    assert later.newest()
    write(later, at(10, 1))  # of a stream, which cannot be entered in its midst
    found = CheckpointDirectory(folder).newest()
    assert found and found.progress == at(10, 1)


def test_what_is_not_ours_is_never_touched(folder: Path, tmp_path: Path) -> None:
    ours = {"10-2", "9-5"}
    (folder / "epoch-3.weights.params").write_text("theirs")
    (folder / "events.out").write_text("theirs")
    (folder / "3-4").mkdir()
    (folder / "3-4" / "notes.txt").write_text("theirs")
    (folder / "3-4" / "weights.params").write_text("theirs")
    (folder / "5").mkdir()
    (folder / "7-7").write_text("theirs")
    outside = tmp_path.parent / "outside"
    outside.mkdir()
    (outside / "weights.params").write_text("theirs")
    (folder / "8-8").symlink_to(outside)
    theirs = set(names(folder)) - ours
    (folder / "9-5" / "notes.txt").write_text("theirs")
    later = CheckpointDirectory(folder)
    assert later.newest()
    write(later, at(11))
    write(later, at(12))
    assert set(names(folder)) == theirs | {"9-5", "11-0", "12-0"}
    assert names(folder / "9-5") == ["notes.txt"]
    assert names(folder / "3-4") == ["notes.txt", "weights.params"]
    assert names(outside) == ["weights.params"]
    later.clear()
    assert set(names(folder)) == theirs | {"9-5"}


def test_leftovers_of_a_kill_are_removed(folder: Path) -> None:
    (folder / "10-3").mkdir()
    (folder / "10-3" / "weights.params").write_text("whole")
    (folder / "10-3" / ".optimizer.params.123").write_text("half")
    (folder / "10-2" / ".best.params.99").write_text("half")
    (folder / "10-2" / "weights.params.sagemaker-uploaded").write_text("")
    (folder / "10-4").mkdir()
    found = CheckpointDirectory(folder).newest()
    assert found and found.folder == folder / "10-2"
    assert names(folder) == ["10-2", "9-5"]
    kept = ["manifest.json", "optimizer.params", "weights.params", "weights.params.sagemaker-uploaded"]
    assert names(folder / "10-2") == kept


def test_a_write_that_fails_leaves_the_ones_before(folder: Path) -> None:
    def fail(path: Path) -> tuple[list[str], dict[str, Any]]:
        (path / "weights.params").write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        CheckpointDirectory(folder).write("11-0", fail)
    assert names(folder) == ["10-2", "9-5"]
    found = CheckpointDirectory(folder).newest()
    assert found and found.folder == folder / "10-2"
    assert names(folder) == ["10-2", "9-5"]


def test_a_name_that_is_taken_is_said(folder: Path) -> None:
    (folder / "11-0").write_text("theirs")
    with pytest.raises(ClientError, match="11-0 has the name of the next checkpoint, but is not a checkpoint"):
        write(CheckpointDirectory(folder), at(11))


def test_another_format_is_passed_over(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    later = CheckpointDirectory(folder)
    assert later.newest()
    with monkeypatch.context() as patch:
        patch.setattr("container.training.checkpoints.directory.FORMAT", 3)
        write(later, at(11))
    found = CheckpointDirectory(folder).newest()
    assert found and found.folder == folder / "10-2"


def test_the_first_versions_checkpoints_are_refused_until_there_is_one_of_ours(tmp_path: Path) -> None:
    (tmp_path / "checkpoint.json").write_text(json.dumps({"job": {}, "best": 0, "history": []}))
    (tmp_path / "epoch-0.weights.params").write_text("weights")
    with pytest.raises(ClientError, match=r"checkpoint\.json is a checkpoint of an earlier version.*_resume=restart"):
        CheckpointDirectory(tmp_path).refuse_first_format()
    made = CheckpointDirectory(tmp_path)
    made.clear()
    write(made, at(1))
    CheckpointDirectory(tmp_path).refuse_first_format()
    assert names(tmp_path) == ["1-0", "checkpoint.json", "epoch-0.weights.params"]


def test_the_best_weights_are_copied_from_where_they_lie(folder: Path, tmp_path: Path) -> None:
    found = CheckpointDirectory(folder).newest()
    assert found
    found.copy_best(tmp_path / "first")
    assert (tmp_path / "first").read_text() == "weights.params of 10-2"
    dataclasses.replace(found, best="optimizer.params").copy_best(tmp_path / "second")
    assert (tmp_path / "second").read_text() == "optimizer.params of 10-2"


def test_on_a_full_disk_the_older_one_gives_way(
    tmp_path: Path, small_disk: SmallDisk, caplog: pytest.LogCaptureFixture
) -> None:
    """Room for two and a half: the third takes the first one's place. A file of somebody else stays."""

    def make(folder: Path) -> tuple[list[str], dict[str, Any]]:
        model_directory.write_bytes(folder / "weights.params", bytes(size))
        return ["weights.params"], {"progress": dataclasses.asdict(at(1)), "identity": {}, "optimizer": {}, **REST}

    size = 2**20
    with small_disk(tmp_path / "disk", 5 * 2**19) as disk:
        (disk / "notes.txt").write_text("theirs")
        made = CheckpointDirectory(disk)
        for name in ("1-0", "2-0"):
            made.write(name, make)
        made.write("3-0", make)
        assert names(disk) == ["2-0", "3-0", "notes.txt"]
        assert f"the older checkpoint {disk}/1-0 is removed to make room for {disk}/3-0: " in caplog.text
        again = CheckpointDirectory(disk)  # an interrupted job's, which has found the newest only
        assert again.newest()
        again.write("4-0", make)
        assert names(disk) == ["3-0", "4-0", "notes.txt"]
        size = 2 * 2**20
        with pytest.raises(PlatformError, match=r"^the disk is full"):
            again.write("5-0", make)
        assert names(disk) == ["4-0", "notes.txt"]
        found = CheckpointDirectory(disk).newest()
        assert found and found.folder == disk / "4-0"
        with pytest.raises(PlatformError):
            again.write("6-0", make)
        assert names(disk) == ["4-0", "notes.txt"]
