"""Augmented manifests: JSON lines whose attributes are references to files, or values."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

_MAX_LINE = 2**20  # bytes; a JSON object in a Ground Truth manifest has at most 100,000 characters


class ManifestError(ValueError):
    """The manifest cannot be used. The text contains the file, the line, and the key."""


@dataclasses.dataclass(frozen=True)
class Value:
    """One attribute of one line: the content of `path`, or `text`."""

    origin: str
    path: Path | None = None
    text: str = ""

    def read(self) -> bytes:
        """Return the bytes of the record; raises ManifestError if the file cannot be read."""
        if self.path is None:
            return self.text.encode()
        try:
            return self.path.read_bytes()
        except OSError as error:
            raise ManifestError(f"{self.origin}: {error}") from error


def read_manifest(path: Path, attributes: Sequence[str], mapping: Mapping[str, Path]) -> list[list[Value]]:
    """Read the `attributes` of every line, in this order; raises ManifestError for the first invalid line.

    The value of a `…-ref` attribute is a file, or an object whose URI starts with a prefix in `mapping`, which contains
    a directory per prefix. The other attributes are values, which are sent as JSON text.
    """
    rows = [
        [_value(entry, key, f"{origin}, {key}", mapping) for key in attributes] for origin, entry in read_lines(path)
    ]
    if not rows:
        raise ManifestError(f"{path} is empty. Write one JSON object per sample")
    return rows


def read_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Read the objects of a manifest, each with its file and line for messages; raises ManifestError."""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(iter(lambda: file.readline(_MAX_LINE + 1), b""), 1):
                if line.strip():
                    origin = f"{path}, line {number}"
                    yield origin, _parse(line, origin)
    except OSError as error:
        raise ManifestError(f"The manifest cannot be read: {error}") from error


def split_mapping(text: str) -> tuple[str, Path]:
    """Split `s3://bucket/prefix=DIR`; raises ManifestError for other texts."""
    prefix, equals, folder = text.partition("=")
    if not (prefix.startswith("s3://") and equals and folder):
        raise ManifestError(f"--map {text} is not valid. Write s3://bucket/prefix=DIR")
    return prefix.rstrip("/"), Path(folder)


def _parse(line: bytes, origin: str) -> dict[str, Any]:
    if len(line) > _MAX_LINE:
        raise ManifestError(f"{origin} has more than {_MAX_LINE} bytes. Write one JSON object per line")
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"{origin} is not valid JSON: {error}") from error
    if not isinstance(entry, dict):
        raise ManifestError(f"{origin} is not a JSON object")
    return entry


def _value(entry: Mapping[str, Any], key: str, origin: str, mapping: Mapping[str, Path]) -> Value:
    if key not in entry:
        raise ManifestError(f"{origin}: the key does not exist. The keys are {', '.join(entry)}")
    if not key.endswith("-ref"):
        return Value(origin, text=json.dumps(entry[key]))
    if not isinstance(entry[key], str):
        raise ManifestError(f"{origin}: a reference must be a string, not {entry[key]!r}")
    path = locate(entry[key], origin, mapping)
    if not path.is_file():
        raise ManifestError(f"{origin}: the file {path} does not exist")
    return Value(origin, path)


def locate(reference: str, origin: str, mapping: Mapping[str, Path]) -> Path:
    """Return the file of a reference. If several prefixes match, the longest prefix is used."""
    if not reference.startswith("s3://"):
        return Path(reference)
    for prefix in sorted(mapping, key=len, reverse=True):
        if reference.startswith(f"{prefix}/"):
            return mapping[prefix] / reference[len(prefix) + 1 :]
    raise ManifestError(f"{origin}: no --map contains a prefix of {reference}")
