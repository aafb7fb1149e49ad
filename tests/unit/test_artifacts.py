"""The model directory: complete files or none, and clear words on one that cannot be used."""

from __future__ import annotations

import json
import os
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


def test_json_holds_names_that_are_no_text_as_they_are_shown(tmp_path: Path) -> None:
    name = os.fsdecode(b"stra\xdfe.jpg")
    path = tmp_path / "audit.json"
    artifacts.write_json(path, {name: [name, ("Größe 🦊\n", 1, None)], "n": 0.5})
    assert json.loads(path.read_text()) == {r"stra\xdfe.jpg": [r"stra\xdfe.jpg", ["Größe 🦊\n", 1, None]], "n": 0.5}
    assert r"\ud" not in path.read_text().replace(r"\ud83e\udd8a", "")  # that pair is the fox


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


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ClientError, match=r"holds no model: hyperparams\.json is missing"):
        artifacts.read_model_settings(tmp_path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[]", "holds a list: it must hold one JSON object"),
        (b"", "is empty"),
        (b"{", "is not valid JSON"),
        (b'{"num_classes": 2, "num_classes": 3}', "is not valid JSON: 'num_classes' stands in it twice"),
        (b'{"a": ' + b"[" * 100_000, "is not usable: its JSON is nested too deeply"),
        (b"\x80\x04", "is not UTF-8"),
        (b'{"a": "' + b"x" * 2**20 + b'"}', "is no training job's: it has more than 1048576 bytes"),
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
        (b'{"num_classes": 2, "algorithm": null}', "algorithm must be fcn, psp or deeplab, not null"),
        (b'{"num_classes": 2, "algorithm": ["fcn"]}', 'algorithm must be fcn, psp or deeplab, not ["fcn"]'),
        (
            b'{"num_classes": 2, "backbone": {}}',
            "backbone must be resnet-18, resnet-34, resnet-50 or resnet-101, not {}",
        ),
        (
            b'{"num_classes": 0, "algorithm": "unet", "backbone": 50}',
            "does not describe a model: num_classes must be 2 \u2264 integer \u2264 254, not 0; "
            'algorithm must be fcn, psp or deeplab, not "unet"; backbone must be resnet-18, resnet-34, resnet-50 or '
            "resnet-101, not 50",
        ),
    ],
)
@pytest.mark.parametrize("source", ["", "/opt/ml/input/data/model/model.tar.gz"])
def test_a_description_that_makes_no_sense_is_named(tmp_path: Path, content: bytes, said: str, source: str) -> None:
    (tmp_path / "hyperparams.json").write_bytes(content)
    (tmp_path / "model_best.params").write_bytes(b"weights")
    with pytest.raises(ClientError) as caught:
        artifacts.read_model_settings(tmp_path, source)
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
def test_settings_mean_the_same_in_every_form(
    tmp_path: Path, num_classes: object, algorithm: str, backbone: str
) -> None:
    describe(tmp_path, {"num_classes": num_classes, "algorithm": algorithm, "backbone": backbone, "crop_size": "x"})
    assert artifacts.read_model_settings(tmp_path) == {"num_classes": 21, "algorithm": "psp", "backbone": "resnet-101"}


def test_an_old_description_gets_the_defaults(tmp_path: Path) -> None:
    describe(tmp_path, {"num_classes": 2})
    assert artifacts.read_model_settings(tmp_path) == {"num_classes": 2, "algorithm": "fcn", "backbone": "resnet-50"}
