"""The answer that training leaves beside its weights, and what passes for the same answer."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from container.artifact.check import approve_int8, create_check_image, fingerprint, read_check, write_check
from container.errors import ClientError

CLASSES = 3


def answer_to(picture: np.ndarray, seed: int = 0) -> np.ndarray:
    """Make up a network's probabilities: scores of a spread of about 3, smooth as the network's are."""
    rng = np.random.default_rng(seed)
    coarse = [Image.fromarray(rng.normal(0, 3, (8, 8)).astype(np.float32)) for _ in range(CLASSES)]
    scores = np.stack([np.asarray(plane.resize((64, 64), Image.Resampling.BILINEAR)) for plane in coarse])
    powers = np.exp(scores + picture.mean(axis=2) / 255)
    return (powers / powers.sum(0)).astype(np.float32)


def rounded(probabilities: np.ndarray, error: float) -> np.ndarray:
    """Add an error of that share of the scores' spread to every score."""
    scores = np.log(probabilities) - np.log(probabilities).mean(0)
    scores += np.random.default_rng(5).normal(0, error * scores.std(), scores.shape)
    powers = np.exp(scores)
    return (powers / powers.sum(0)).astype(np.float32)


def mask_of(probabilities: np.ndarray) -> np.ndarray:
    return probabilities.argmax(0).astype(np.uint8)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "model_best.params").write_bytes(np.random.default_rng(1).bytes(300_000))
    write_check(tmp_path, answer_to)
    return tmp_path


def rewrite(model: Path, **changes: Any) -> None:
    content = json.loads((model / "check.json").read_text())
    (model / "check.json").write_text(json.dumps({**content, **changes}))


def test_check_file_contains_the_output(model: Path) -> None:
    content = json.loads((model / "check.json").read_text())
    picture = np.frombuffer(base64.b64decode(content["picture"]), np.uint8).reshape(64, 64, 3)
    assert len(np.unique(picture)) > 100
    expected = answer_to(picture)
    mask = np.frombuffer(base64.b64decode(content["mask"]), np.uint8).reshape(64, 64)
    np.testing.assert_array_equal(mask, expected.argmax(0))
    values = np.frombuffer(base64.b64decode(content["probabilities"]), "<f4").reshape(CLASSES, 8, 8)
    np.testing.assert_array_equal(
        values, expected[:, [0, 9, 18, 27, 36, 45, 54, 63]][..., [0, 9, 18, 27, 36, 45, 54, 63]]
    )
    assert content["num_classes"] == CLASSES
    np.testing.assert_array_equal(read_check(model).image, create_check_image())  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("precision", "error", "passes"),
    [
        ("float32", 0.0, True),
        ("float32", 0.05, True),
        ("float32", 0.15, False),
        ("bfloat16", 0.15, True),
        ("bfloat16", 0.3, False),
        ("float16", 0.3, False),
        ("int8", 0.4, True),
        ("int8", 0.7, False),
    ],
)
def test_only_rounding_differences_are_accepted(model: Path, precision: str, error: float, passes: bool) -> None:
    check = read_check(model)
    assert check
    answer = rounded(answer_to(check.image), error)
    fault = check.describe_difference(mask_of(answer), answer, precision)
    assert ("of their spread" in fault) is not passes


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])
def test_output_of_another_model_is_rejected(model: Path, precision: str) -> None:
    check = read_check(model)
    assert check
    other = answer_to(check.image, seed=1)
    assert "of their spread" in check.describe_difference(mask_of(other), other, precision)
    assert "the output has 2 classes instead of 3" in check.describe_difference(mask_of(other), other[:2], precision)


def test_any_class_of_a_tie_is_accepted(model: Path) -> None:
    write_check(model, lambda picture: np.full((CLASSES, 64, 64), 1 / 3, np.float32))
    check = read_check(model)
    assert check
    even = np.full((CLASSES, 64, 64), 1 / 3, np.float32)
    assert check.describe_difference(np.full((64, 64), 2, np.uint8), even, "int8") == ""


def test_mask_without_the_most_likely_class_is_rejected(model: Path) -> None:
    check = read_check(model)
    assert check
    answer = answer_to(check.image)
    assert "in the returned mask do not have the most likely class" in check.describe_difference(
        answer.argmin(0).astype(np.uint8), answer, "float32"
    )


def test_output_that_is_not_finite_is_not_written(tmp_path: Path) -> None:
    (tmp_path / "model_best.params").touch()
    with pytest.raises(ValueError, match="the output of the best weights contains numbers that are not finite"):
        write_check(tmp_path, lambda picture: np.full((CLASSES, 64, 64), np.nan, np.float32))
    assert not (tmp_path / "check.json").exists()


def test_missing_check_file_is_accepted(tmp_path: Path) -> None:
    assert read_check(tmp_path) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"picture": "AAAA"},
        {"mask": None},
        {"probabilities": "AAAA"},
        {"num_classes": 4},
        {"num_classes": "x"},
        {"int8": 3},
    ],
)
def test_corrupt_check_file_is_named(model: Path, changes: dict[str, Any]) -> None:
    rewrite(model, **changes)
    with pytest.raises(
        ClientError, match=rf"{model}/check.json is corrupt \(.*Extract the model.tar.gz of the job again"
    ):
        read_check(model)


@pytest.mark.parametrize("text", ["", "[]", "{}", "[" * 100_000, "\xff"])
def test_invalid_json_is_named(model: Path, text: str) -> None:
    (model / "check.json").write_text(text, encoding="latin-1")
    with pytest.raises(ClientError, match=r"check\.json is corrupt"):
        read_check(model)


def test_fingerprints_of_different_files_differ(tmp_path: Path) -> None:
    content = np.random.default_rng(2).bytes(1_000_000)
    path = tmp_path / "file"
    path.write_bytes(content)
    first = fingerprint(path)
    for other in (content[:-1], content + b"\0", b"\0" + content[1:], content[:-1] + b"\0", content[::-1]):
        path.write_bytes(other)
        assert fingerprint(path) != first
    path.write_bytes(content)
    assert fingerprint(path) == first
    path.write_bytes(b"")
    assert fingerprint(path) != first


def test_int8_model_is_approved_by_its_fingerprint(model: Path) -> None:
    assert read_check(model).int8 == ""  # type: ignore[union-attr]
    (model / "model.int8.onnx").write_bytes(b"graph")
    approve_int8(model, {"mIOU": {"float32": 0.75, "int8": 0.5}})
    check = read_check(model)
    assert check and check.int8 == fingerprint(model / "model.int8.onnx")
    assert json.loads((model / "check.json").read_text())["int8"]["mIOU"] == {"float32": 0.75, "int8": 0.5}
