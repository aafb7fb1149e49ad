"""The model directory: complete files or none, and clear words on one that cannot be used."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from container import artifacts
from container.errors import ClientError


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "model_best.params"
    path.write_bytes(b"old")

    def fail(name: str) -> None:
        Path(name).write_bytes(b"half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        artifacts.write_weights(path, fail)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    kept = {"model_best.params", ".notes.123", ".model_best.params", "model_algo-1.123"}
    for name in (*kept, ".model_best.params.123", ".model_algo-1.7", ".model.onnx.99"):
        (tmp_path / name).write_bytes(b"content")
    artifacts.remove_temporaries(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == kept
    artifacts.remove_temporaries(tmp_path / "missing")


def describe(folder: Path, content: object) -> None:
    (folder / "hyperparams.json").write_text(json.dumps(content))
    (folder / "model_best.params").write_bytes(b"weights")


def test_the_built_ins_strings_are_read(tmp_path: Path) -> None:
    describe(tmp_path, {"num_classes": "21", "algorithm": "psp", "backbone": "resnet-101", "crop_size": "240"})
    assert artifacts.read_model_settings(tmp_path) == {"num_classes": 21, "algorithm": "psp", "backbone": "resnet-101"}


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ClientError, match=r"holds no model: hyperparams\.json is missing"):
        artifacts.read_model_settings(tmp_path)


@pytest.mark.parametrize("content", [[], {}, {"num_classes": "many"}, {"num_classes": 1}])
def test_a_description_that_makes_no_sense_is_named(tmp_path: Path, content: object) -> None:
    describe(tmp_path, content)
    with pytest.raises(ClientError, match=r"hyperparams\.json"):
        artifacts.read_model_settings(tmp_path)


def test_an_archive_is_opened_by_known_names_only(tmp_path: Path) -> None:
    packed, channel = tmp_path / "packed", tmp_path / "channel"
    packed.mkdir(), channel.mkdir()
    describe(packed, {"num_classes": 2})
    (packed / "evil").write_text("evil")
    with tarfile.open(channel / "model.tar.gz", "w:gz") as archive:
        archive.add(packed / "hyperparams.json", "hyperparams.json")
        archive.add(packed / "model_best.params", "./model_best.params")
        archive.add(packed / "evil", "../../evil")
    with artifacts.opened_model(channel) as folder:
        assert {path.name for path in folder.iterdir()} == {"hyperparams.json", "model_best.params"}
        assert (folder / "model_best.params").read_bytes() == b"weights"
    assert not folder.exists()
    assert not (tmp_path / "evil").exists()


def test_an_unpacked_model_is_taken_where_it_is(tmp_path: Path) -> None:
    describe(tmp_path, {"num_classes": 2})
    with artifacts.opened_model(tmp_path) as folder:
        assert folder == tmp_path


def test_a_damaged_archive_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.tar.gz").write_bytes(b"no archive")
    with pytest.raises(ClientError, match=r"model\.tar\.gz cannot be unpacked"), artifacts.opened_model(tmp_path):
        pass
