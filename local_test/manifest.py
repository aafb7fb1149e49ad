"""Augmented manifests: JSON lines whose attributes name objects, or hold values."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any


class ManifestError(ValueError):
    """The manifest cannot be fed; the text names file, line and key."""


@dataclasses.dataclass(frozen=True)
class Value:
    """One attribute of one line: the content of `path`, or `text` itself."""

    origin: str
    path: Path | None = None
    text: str = ""

    def read(self) -> bytes:
        """Return the record's bytes; raises ManifestError when the file has gone."""
        if self.path is None:
            return self.text.encode()
        try:
            return self.path.read_bytes()
        except OSError as error:
            raise ManifestError(f"{self.origin}: {error}") from error


def read_manifest(path: Path, attributes: Sequence[str], mapping: Mapping[str, Path]) -> list[list[Value]]:
    """Read every line's `attributes`, in that order; raises ManifestError for the first that cannot be used.

    `…-ref` attributes name a file, or an object below one of the prefixes that `mapping` leads to directories.
    Other attributes are values: they are sent as their JSON text.
    """
    rows = [
        [_value(entry, key, f"{origin}, {key}", mapping) for key in attributes] for origin, entry in read_lines(path)
    ]
    if not rows:
        raise ManifestError(f"{path} has no lines: write one JSON object per sample")
    return rows


def read_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Read the objects of a manifest, each with its file and line for messages; raises ManifestError."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(f"the manifest cannot be read: {error}") from error
    for number, line in enumerate(lines, 1):
        if line.strip():
            origin = f"{path}, line {number}"
            yield origin, _parse(line, origin)


def split_mapping(text: str) -> tuple[str, Path]:
    """Split `s3://bucket/prefix=DIR`; raises ManifestError when it is not of that form."""
    prefix, equals, folder = text.partition("=")
    if not (prefix.startswith("s3://") and equals and folder):
        raise ManifestError(f"--map {text}: write s3://bucket/prefix=DIR")
    return prefix.rstrip("/"), Path(folder)


def _parse(line: str, origin: str) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except ValueError as error:
        raise ManifestError(f"{origin}: this is no JSON: {error}") from error
    if not isinstance(entry, dict):
        raise ManifestError(f"{origin}: this is no JSON object")
    return entry


def _value(entry: Mapping[str, Any], key: str, origin: str, mapping: Mapping[str, Path]) -> Value:
    if key not in entry:
        raise ManifestError(f"{origin}: there is no such key (there are: {', '.join(entry)})")
    if not key.endswith("-ref"):
        return Value(origin, text=json.dumps(entry[key]))
    if not isinstance(entry[key], str):
        raise ManifestError(f"{origin}: a reference must be a string, not {entry[key]!r}")
    path = locate(entry[key], origin, mapping)
    if not path.is_file():
        raise ManifestError(f"{origin}: there is no file {path}")
    return Value(origin, path)


def locate(reference: str, origin: str, mapping: Mapping[str, Path]) -> Path:
    """Find the file that a reference means; the longest prefix wins."""
    if not reference.startswith("s3://"):
        return Path(reference)
    for prefix in sorted(mapping, key=len, reverse=True):
        if reference.startswith(f"{prefix}/"):
            return mapping[prefix] / reference[len(prefix) + 1 :]
    raise ManifestError(f"{origin}: no --map leads {reference} to a directory")
