"""Verified directories: a manifest lists the size and SHA-256 of every file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from container.artifact import model_directory

MANIFEST = "manifest.json"

_PIECE_BYTES = 2**20


class IncompleteCheckpointError(Exception):
    """A directory does not match its manifest; the text contains the reason."""


def write_manifest(folder: Path, names: Iterable[str], content: Mapping[str, Any]) -> None:
    """Seal `folder`, whose files `names` are complete: `content` is what `read_manifest` returns of it."""
    files = {name: {"size": (folder / name).stat().st_size, "sha256": _hash(folder / name)} for name in names}
    sealed = {"files": files, "content": content}
    model_directory.write_json(folder / MANIFEST, {**sealed, "sha256": _hash_json(sealed)})


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest's content, with the names of its files as `files`; raises NotWhole when it is damaged.

    That proves the manifest only, quickly; `prove_files` proves what it names.
    """
    return dict(_read(folder)["content"])


def prove_files(folder: Path) -> None:
    """Compare every file with the manifest, size first; raises NotWhole that names the first one that differs."""
    files: Mapping[str, Mapping[str, Any]] = _read(folder)["files"]
    for name, expected in files.items():
        path = folder / name
        if not path.is_file():
            raise IncompleteCheckpointError(f"{name} is missing")
        if (size := path.stat().st_size) != expected["size"]:
            raise IncompleteCheckpointError(f"{name} has {size} bytes instead of {expected['size']}")
    for name, expected in files.items():
        if _hash(folder / name) != expected["sha256"]:
            raise IncompleteCheckpointError(f"the content of {name} is not what was written (its SHA-256 differs)")


def _read(folder: Path) -> dict[str, Any]:
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text())
        sealed = {"files": manifest["files"], "content": manifest["content"]}
        if manifest["sha256"] != _hash_json(sealed):
            raise IncompleteCheckpointError(f"the content of {MANIFEST} is not what was written (its SHA-256 differs)")
        if any(Path(name).name != name for name in sealed["files"]):
            raise IncompleteCheckpointError(f"{MANIFEST} names files outside its directory")
    except FileNotFoundError:
        raise IncompleteCheckpointError(f"{MANIFEST} is missing: it was not written to its end") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise IncompleteCheckpointError(f"{MANIFEST} is not readable: {type(error).__name__}: {error}") from error
    return sealed


def _hash_json(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _hash(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(_PIECE_BYTES):
            digest.update(piece)
    return digest.hexdigest()
