"""A directory's manifest: whatever happens to a file is noticed, and named."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from container.training.checkpoints.manifest import (
    MANIFEST,
    IncompleteCheckpointError,
    prove_files,
    read_manifest,
    write_manifest,
)

CONTENT = {"epoch": 3, "loss": 0.1, "history": [{"mIOU": 0.25}], "best": None}


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    (tmp_path / "weights.params").write_bytes(b"weights")
    (tmp_path / "optimizer.params").write_bytes(b"optimizer")
    write_manifest(tmp_path, ["weights.params", "optimizer.params"], CONTENT)
    return tmp_path


def test_what_was_written_is_read(sealed: Path) -> None:
    assert read_manifest(sealed) == CONTENT
    prove_files(sealed)
    assert json.loads((sealed / MANIFEST).read_text())["files"]["weights.params"] == {
        "size": 7,
        "sha256": hashlib.sha256(b"weights").hexdigest(),
    }


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "weights.params is missing"),
        (b"", "weights.params has 0 bytes instead of 7"),
        (b"weight", "weights.params has 6 bytes instead of 7"),
        (b"weights!", "weights.params has 8 bytes instead of 7"),
        (b"Weights", "the content of weights.params is not what was written"),
    ],
)
def test_a_file_that_is_not_what_was_written_is_named(sealed: Path, content: bytes | None, reason: str) -> None:
    (sealed / "weights.params").unlink()
    if content is not None:
        (sealed / "weights.params").write_bytes(content)
    with pytest.raises(IncompleteCheckpointError, match=reason):
        prove_files(sealed)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_cut_manifest_proves_nothing(sealed: Path, share: float) -> None:
    text = (sealed / MANIFEST).read_text().rstrip()
    (sealed / MANIFEST).write_text(text[: int(share * len(text))])
    with pytest.raises(IncompleteCheckpointError, match=r"manifest\.json is not readable"):
        read_manifest(sealed)


def test_a_missing_manifest_means_that_writing_never_ended(sealed: Path) -> None:
    (sealed / MANIFEST).unlink()
    with pytest.raises(IncompleteCheckpointError, match="is missing: it was not written to its end"):
        read_manifest(sealed)


@pytest.mark.parametrize("text", ["[]", "null", "{}", '{"files": {}, "content": {}}'])
def test_json_of_another_kind_proves_nothing(sealed: Path, text: str) -> None:
    (sealed / MANIFEST).write_text(text)
    with pytest.raises(IncompleteCheckpointError, match=r"manifest\.json is not readable"):
        read_manifest(sealed)


def test_a_manifest_changed_by_hand_proves_nothing(sealed: Path) -> None:
    manifest = json.loads((sealed / MANIFEST).read_text())
    manifest["content"]["epoch"] = 4
    (sealed / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(IncompleteCheckpointError, match=r"the content of manifest\.json is not what was written"):
        read_manifest(sealed)


def test_a_manifest_names_nothing_outside_its_directory(tmp_path: Path) -> None:
    folder = tmp_path / "1-0"
    folder.mkdir()
    (tmp_path / "secret").write_text("secret")
    write_manifest(folder, ["../secret"], CONTENT)
    with pytest.raises(IncompleteCheckpointError, match="names files outside its directory"):
        prove_files(folder)
