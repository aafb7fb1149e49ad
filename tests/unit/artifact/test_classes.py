from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from container.artifact.check import read_check
from container.artifact.classes import ClassEntry, read_classes
from container.artifact.model_directory import read_model_settings
from container.errors import ClientError


def test_names_and_colors(tmp_path: Path) -> None:
    assert read_classes(tmp_path) == {}
    content = [{"id": 0, "name": "ground", "color": "#0a0BfF"}, {"id": 3, "name": "cat"}]
    (tmp_path / "classes.json").write_text(json.dumps(content))
    assert read_classes(tmp_path) == {0: ClassEntry("ground", (10, 11, 255)), 3: ClassEntry("cat")}


def test_ids_up_to_254_and_names_in_utf_8_are_read(tmp_path: Path) -> None:
    (tmp_path / "classes.json").write_bytes('\ufeff[{"id": 254, "name": "Straße 道路"}, {"id": "3"}]'.encode())
    assert read_classes(tmp_path) == {254: ClassEntry("Straße 道路"), 3: ClassEntry()}


def test_the_locale_does_not_change_how_names_are_read(tmp_path: Path) -> None:
    (tmp_path / "classes.json").write_bytes('[{"id": 0, "name": "Straße"}]'.encode())
    program = f"from container.artifact.classes import *; print(ascii(read_classes(Path({str(tmp_path)!r}))[0].name))"
    variables = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONPATH": str(Path.cwd())}
    done = subprocess.run([sys.executable, "-c", program], env=variables, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "'Stra\\xdfe'"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"{", "is not valid JSON: Expecting property name"),
        (b"[1]", "entry 1: it is a number, not an object"),
        (b"7", "contains a number"),
        (b'{"id": 0}', "contains an object"),
        (b'[{"name": "a"}]', "entry 1: the id is null"),
        (b'[{"id": 0}, {"id": 255}]', "entry 2: the id is 255, not an integer from 0 to 254"),
        (b'[{"id": -1}]', "the id is -1"),
        (b'[{"id": 1.5}]', "the id is a number, not an integer"),
        (b'[{"id": true}]', "the id is true or false"),
        (b'[{"id": "x"}]', "the id is a string"),
        (b'[{"id": 1%s}]' % (b"0" * 4000), "the id is 10000000000000000000, not an integer"),
        (b'[{"id": %s}]' % (b"1" * 5000), "contains a number of 5000 digits"),
        (b'[{"id": 0}, {"id": 0}]', "entry 2: the file contains the id 0 twice"),
        (b'[{"id": 0, "id": 1}]', "it contains 'id' twice"),
        (b'[{"id": 0, "name": 5}]', "the name is a number, not a string"),
        (b'[{"id": 0, "name": ["a"]}]', "the name is a list, not a string"),
        (b'[{"id": 0, "name": "\\ud800"}]', "the name is not valid Unicode text"),
        (b'[{"id": 0, "color": "red"}]', "the color is 'red', not in the format #rrggbb"),
        (b'[{"id": 0, "color": [1, 2, 3]}]', "the color is a list, not a string"),
        (b'[{"id": 0, "name": "Stra\xdfe"}]', "is not UTF-8"),
        ('[{"id": 0}]'.encode("utf-16"), "is encoded as UTF-16 or UTF-32"),
        (b"[" * 100_000, "nested too deeply"),
        (b"", "is not valid JSON"),
    ],
)
def test_corrupt_file_is_named(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "classes.json").write_bytes(content)
    with pytest.raises(ClientError) as refused:
        read_classes(tmp_path)
    assert str(tmp_path / "classes.json") in str(refused.value)
    assert reason in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["classes.json", "check.json", "hyperparams.json"])
def test_large_file_is_rejected_without_reading_it(tmp_path: Path, name: str) -> None:
    (tmp_path / "model_best.params").write_bytes(b"weights")
    with (tmp_path / name).open("wb") as file:
        file.truncate(3 * 2**30)  # zeros that take no disk
    read = {"classes.json": read_classes, "check.json": read_check, "hyperparams.json": read_model_settings}[name]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ClientError, match=rf"{name}.* has more than 1048576 bytes"):
        read(tmp_path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kilobytes


def test_pipe_instead_of_a_file_is_rejected(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "classes.json")
    with pytest.raises(ClientError, match=r"classes\.json is not a regular file"):
        read_classes(tmp_path)


def test_unreadable_file_is_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "classes.json").write_text("[]")

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied", "x")

    monkeypatch.setattr(Path, "open", refuse)  # root may read every file
    with pytest.raises(ClientError, match=r"classes\.json cannot be read: Permission denied"):
        read_classes(tmp_path)
