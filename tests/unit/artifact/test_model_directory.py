"""The model directory: complete files or none, and clear words on one that cannot be used."""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from container.artifact import model_directory
from container.errors import ClientError, PlatformError
from container.geometry.windows import Windows
from tests.conftest import SmallDisk


def fail_with(number: int, name: str | None = None) -> Callable[[str], None]:
    def fail(written: str) -> None:
        Path(written).write_bytes(b"half")
        raise OSError(number, os.strerror(number), name)

    return fail


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "the disk is full: use a larger volume (volume_size)"),
        (errno.EDQUOT, "the disk quota is exceeded: increase it, or use a larger volume (volume_size)"),
        (errno.EROFS, "the file system is read-only: mount it writable"),
        (errno.EACCES, "permission is denied: allow the user of the job to write there"),
        (errno.EIO, "the disk reports an error: run the job again on another instance"),
    ],
)
def test_failed_write_leaves_only_the_old_file(tmp_path: Path, number: int, remedy: str) -> None:
    path = tmp_path / "model_best.params"
    path.write_bytes(b"old weights")
    with pytest.raises(PlatformError) as raised:
        model_directory.write_weights(path, fail_with(number))
    expected = (
        rf"{path} could not be written: \[Errno {number}\] .*\. The file needs 11 bytes, and \d{{6,}} bytes are free\."
    )
    assert str(raised.value).startswith(f"{remedy}. ")
    assert re.fullmatch(expected, str(raised.value).removeprefix(f"{remedy}. "))
    assert path.read_bytes() == b"old weights"
    assert list(tmp_path.iterdir()) == [path]


def test_json_escapes_names_that_are_not_text(tmp_path: Path) -> None:
    name = os.fsdecode(b"stra\xdfe.jpg")
    path = tmp_path / "audit.json"
    model_directory.write_json(path, {name: [name, ("Größe 🦊\n", 1, None)], "n": 0.5})
    assert json.loads(path.read_text()) == {r"stra\xdfe.jpg": [r"stra\xdfe.jpg", ["Größe 🦊\n", 1, None]], "n": 0.5}
    assert r"\ud" not in path.read_text().replace(r"\ud83e\udd8a", "")  # that pair is the fox


def test_only_files_of_killed_processes_are_removed(tmp_path: Path) -> None:
    kept = {"model_best.params", ".notes.123", ".model_best.params", "model_algo-1.123"}
    written = ("model_best.params", "model_algo-1", "model.onnx", "model.int8.onnx")
    described = ("hyperparams.json", "classes.json", "check.json")
    for name in (*kept, *(f".{file}.{number}" for number, file in enumerate((*written, *described)))):
        (tmp_path / name).write_bytes(b"content")
    model_directory.remove_temporaries(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == kept
    model_directory.remove_temporaries(tmp_path / "missing")


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_error_at_close_fails_the_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    def fail(*arguments: object, **keywords: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(PlatformError, match=r"^the disk reports an error: .*hyperparams\.json could not be written"):
        model_directory.write_json(tmp_path / "hyperparams.json", {})
    assert list(tmp_path.iterdir()) == []


def test_file_and_directory_are_synced_before_and_after_the_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[tuple[str, bool]] = []
    fsync = os.fsync

    def record(descriptor: int) -> None:
        name = os.readlink(f"/proc/self/fd/{descriptor}")
        synced.append((Path(name).name, (tmp_path / "classes.json").exists()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    model_directory.write_json(tmp_path / "classes.json", [])
    assert synced == [(f".classes.json.{os.getpid()}", False), (tmp_path.name, True)]


def test_error_of_another_file_is_not_reported_as_a_disk_error(tmp_path: Path) -> None:
    lost = tmp_path / "elsewhere" / "lost"
    with pytest.raises(FileNotFoundError, match="lost"), model_directory.replacing(tmp_path / "model_algo-1"):
        lost.read_bytes()
    with pytest.raises(FileNotFoundError, match="lost"):
        model_directory.copy_file(lost, tmp_path / "model_algo-1")
    with pytest.raises(KeyError), model_directory.replacing(tmp_path / "model_algo-1"):
        raise KeyError("a defect of ours")
    assert list(tmp_path.iterdir()) == []


def test_file_that_does_not_fit_is_not_started(tmp_path: Path) -> None:
    path = tmp_path / "new" / "model.onnx"
    begun = False
    expected = rf"^the disk is full: .*{path} cannot be written: it needs {2**60} bytes, and \d+ are free"
    with pytest.raises(PlatformError, match=expected), model_directory.replacing(path, 2**60):
        begun = True
    assert not begun


def test_read_only_directory_is_named(tmp_path: Path, small_disk: SmallDisk) -> None:
    with small_disk(tmp_path / "disk", 2**20, "ro") as disk:
        for path in (disk / "report.json", disk / "data" / "report.json"):
            with pytest.raises(PlatformError, match=rf"^the file system is read-only: .*{path} could not be written"):
                model_directory.write_json(path, {})


def test_full_disk_is_named_with_both_sizes(tmp_path: Path, small_disk: SmallDisk) -> None:
    with small_disk(tmp_path / "disk", 2**20) as disk:
        with pytest.raises(PlatformError, match=r"^the disk is full: .* it needs 1048577 bytes, and 1048576 are free"):
            model_directory.write_bytes(disk / "model.onnx", bytes(2**20 + 1))
        path = disk / "model_best.params"
        with pytest.raises(PlatformError) as raised:
            model_directory.write_weights(path, lambda name: Path(name).write_bytes(bytes(2**21)) and None)
        assert re.fullmatch(
            rf"the disk is full: use a larger volume \(volume_size\)\. {path} could not be written: "
            r"\[Errno 28\] No space left on device\. The file needs 1048576 bytes, and 1048576 bytes are free\.",
            str(raised.value),
        )
        assert list(disk.iterdir()) == []


def test_temporary_files_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    (tmp_path / ".model.onnx.4711").write_bytes(b"half")
    (tmp_path / ".model.onnx.cache").write_bytes(b"somebody's")
    model_directory.write_bytes(tmp_path / "model.onnx", b"whole")
    assert {path.name for path in tmp_path.iterdir()} == {"model.onnx", ".model.onnx.cache"}


def describe(folder: Path, content: object) -> None:
    (folder / "hyperparams.json").write_text(json.dumps(content))
    (folder / "model_best.params").write_bytes(b"weights")


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ClientError, match=r"does not contain a model: hyperparams\.json is missing"):
        model_directory.read_model_settings(tmp_path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[]", "contains a list. It must contain one JSON object."),
        (b"", "is empty"),
        (b"{", "is not valid JSON"),
        (b'{"num_classes": 2, "num_classes": 3}', "is not valid JSON: it contains 'num_classes' twice"),
        (b'{"a": ' + b"[" * 100_000, "is not usable: the JSON is nested too deeply"),
        (b"\x80\x04", "is not UTF-8"),
        (b'{"a": "' + b"x" * 2**20 + b'"}', "has more than 1048576 bytes"),
        (b"{}", "does not describe a model: num_classes must be 2 \u2264 integer \u2264 254, not null"),
        (b'{"num_classes": "many"}', 'num_classes must be 2 \u2264 integer \u2264 254, not "many"'),
        (b'{"num_classes": 1}', "num_classes must be 2 \u2264 integer \u2264 254, not 1"),
        (b'{"num_classes": 255}', "num_classes must be 2 \u2264 integer \u2264 254, not 255"),
        (b'{"num_classes": 2.5}', "num_classes must be 2 \u2264 integer \u2264 254, not 2.5"),
        (b'{"num_classes": true}', "num_classes must be 2 \u2264 integer \u2264 254, not true"),
        (b'{"num_classes": NaN}', "num_classes must be 2 \u2264 integer \u2264 254, not NaN"),
        (b'{"num_classes": "NaN"}', 'num_classes must be 2 \u2264 integer \u2264 254, not "NaN"'),
        (b'{"num_classes": 1e400}', "num_classes must be 2 \u2264 integer \u2264 254, not Infinity"),
        (b'{"num_classes": [2]}', "num_classes must be 2 \u2264 integer \u2264 254, not [2]"),
        (b'{"num_classes": 2, "algorithm": null}', "algorithm must be fcn, psp, deeplab or fastscnn, not null"),
        (b'{"num_classes": 2, "algorithm": ["fcn"]}', 'algorithm must be fcn, psp, deeplab or fastscnn, not ["fcn"]'),
        (
            b'{"num_classes": 2, "backbone": {}}',
            "backbone must be resnet-18, resnet-34, resnet-50 or resnet-101, not {}",
        ),
        (
            b'{"num_classes": 0, "algorithm": "unet", "backbone": 50}',
            "does not describe a model: num_classes must be 2 \u2264 integer \u2264 254, not 0; "
            'algorithm must be fcn, psp, deeplab or fastscnn, not "unet"; backbone must be resnet-18, resnet-34, '
            "resnet-50 or resnet-101, not 50",
        ),
    ],
)
@pytest.mark.parametrize("source", ["", "/opt/ml/input/data/model/model.tar.gz"])
def test_invalid_description_is_named(tmp_path: Path, content: bytes, said: str, source: str) -> None:
    (tmp_path / "hyperparams.json").write_bytes(content)
    (tmp_path / "model_best.params").write_bytes(b"weights")
    with pytest.raises(ClientError) as caught:
        model_directory.read_model_settings(tmp_path, source)
    assert str(caught.value).startswith(f"hyperparams.json of {source or tmp_path} ")
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("num_classes", "algorithm", "backbone"),
    [
        (21, "psp", "resnet-101"),
        ("21", "psp", "resnet-101"),
        (21.0, "psp", "resnet-101"),
        (" 21 ", " psp ", "resnet-101 "),
        ('"21"', '"psp"', '"resnet-101"'),
        ("21.0", '" psp "', '"resnet-101"'),
    ],
)
def test_settings_are_equal_in_every_encoding(
    tmp_path: Path, num_classes: object, algorithm: str, backbone: str
) -> None:
    describe(tmp_path, {"num_classes": num_classes, "algorithm": algorithm, "backbone": backbone, "crop_size": "x"})
    assert model_directory.read_model_settings(tmp_path) == {
        "num_classes": 21,
        "algorithm": "psp",
        "backbone": "resnet-101",
    }


def test_architecture_without_a_backbone_has_no_backbone_setting(tmp_path: Path) -> None:
    for written in ({}, {"backbone": "resnet-50"}):
        describe(tmp_path, {"num_classes": 2, "algorithm": "fastscnn", **written})
        assert model_directory.read_model_settings(tmp_path) == {"num_classes": 2, "algorithm": "fastscnn"}


def test_old_description_gets_the_defaults(tmp_path: Path) -> None:
    describe(tmp_path, {"num_classes": 2})
    assert model_directory.read_model_settings(tmp_path) == {
        "num_classes": 2,
        "algorithm": "fcn",
        "backbone": "resnet-50",
    }


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, None),
        ({"_overlap": 0.5}, None),
        ({"_window": "512"}, Windows(512, 0.25)),
        ({"_window": 512.0, "_overlap": "0.5"}, Windows(512, 0.5)),
        ({"_window": '"512"', "_overlap": 0.75}, Windows(512, 0.75)),
        ({"_window": 512, "algorithm": "fcn"}, None),
    ],
)
def test_windows_are_read_in_every_encoding(
    tmp_path: Path, settings: dict[str, object], expected: Windows | None
) -> None:
    describe(tmp_path, {"num_classes": 2, "algorithm": "psp", **settings})
    assert model_directory.read_windows(tmp_path) == expected


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("_window", 63, "_window must be 64 \u2264 integer, not 63"),
        ("_window", None, "_window must be 64 \u2264 integer, not null"),
        ("_window", 1e9 + 0.5, "_window must be 64 \u2264 integer, not 1000000000.5"),
        ("_overlap", 0, "_overlap must be 0 < number \u2264 0.75, not 0"),
        ("_overlap", 1, "_overlap must be 0 < number \u2264 0.75, not 1"),
        ("_overlap", True, "_overlap must be 0 < number \u2264 0.75, not true"),
        ("_overlap", "NaN", '_overlap must be 0 < number \u2264 0.75, not "NaN"'),
    ],
)
def test_invalid_windows_are_named(tmp_path: Path, name: str, value: object, said: str) -> None:
    describe(tmp_path, {"num_classes": 2, "algorithm": "psp", "_window": 128, name: value})
    with pytest.raises(ClientError, match=re.escape(said)):
        model_directory.read_windows(tmp_path, "the archive")
