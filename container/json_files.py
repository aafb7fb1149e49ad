"""JSON that people and platforms wrote: read with words on what is wrong with it, and no guessing."""

from __future__ import annotations

import codecs
import json
from pathlib import Path
from typing import Any

from container.errors import ClientError

_FOREIGN = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)  # UTF-32 LE begins as UTF-16 LE does
_KINDS = {dict: "an object", list: "a list", str: "a string", bool: "true or false", int: "a number", float: "a number"}


def read_object(path: Path) -> dict[str, Any]:
    """Read the JSON object in `path`, UTF-8 with or without a byte-order mark.

    Raises ClientError that names the file and what is wrong with it, and FileNotFoundError when it is not there.
    """
    try:
        return parse_object(path.read_bytes(), str(path))
    except IsADirectoryError as error:
        raise ClientError(f"{path} is a directory: put a file with one JSON object there") from error


def parse_object(content: bytes, name: str) -> dict[str, Any]:
    """Parse one JSON object; raises ClientError that calls it `name` and says what is wrong with it."""
    if not content.strip():
        raise ClientError(f"{name} is empty: it must hold one JSON object")
    if content.startswith(_FOREIGN):
        raise ClientError(f"{name} is UTF-16 or UTF-32: save it as UTF-8")
    try:
        parsed = json.loads(content.decode("utf-8-sig"), object_pairs_hook=_unique)
    except UnicodeDecodeError as error:
        byte = content[error.start]
        raise ClientError(f"{name} is not UTF-8 (byte 0x{byte:02x} at {error.start}): save it as UTF-8") from error
    except RecursionError as error:
        raise ClientError(f"{name} is not usable: its JSON is nested too deeply") from error
    except ValueError as error:
        raise ClientError(f"{name} is not valid JSON: {error}") from error
    if not isinstance(parsed, dict):
        raise ClientError(f"{name} holds {describe(parsed)}: it must hold one JSON object")
    return parsed


def describe(value: object) -> str:
    """Name a JSON value's kind, as in `a list`."""
    return _KINDS.get(type(value), "null")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object of its members; JSON would let the last of two of one name win."""
    members = dict(pairs)
    if len(members) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} stands in it twice")
    return members
