"""Reading of JSON files, with clear errors."""

from __future__ import annotations

import codecs
import json
from pathlib import Path
from typing import Any

from container.errors import ClientError

LIMIT = 2**20  # bytes of one file

_FOREIGN = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)  # UTF-32 LE starts like UTF-16 LE
_KINDS = {dict: "an object", list: "a list", str: "a string", bool: "true or false", int: "a number", float: "a number"}


def read_object(path: Path) -> dict[str, Any]:
    """Read the JSON object in `path`, UTF-8 with or without a byte-order mark.

    Raises ClientError that names the file and the error, and FileNotFoundError if the file does not exist.
    """
    return parse_object(read_limited(path), str(path))


def read_limited(path: Path, name: str = "", limit: int = LIMIT) -> bytes:
    """Return the bytes of a file; at most `limit` + 1 bytes are read.

    Raises FileNotFoundError. Raises ClientError that calls the file `name` if it is larger than `limit`, not a regular
    file, or not readable.
    """
    name = name or str(path)
    if path.is_dir():
        raise ClientError(f"{name} is a directory. Replace it with a file that contains one JSON object.")
    if path.exists() and not path.is_file():  # opening a pipe can block forever
        raise ClientError(f"{name} is not a regular file. Replace it with a JSON file.")
    try:
        with path.open("rb") as file:
            content = file.read(limit + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ClientError(f"{name} cannot be read: {error.strerror}. Check its permissions.") from error
    if len(content) > limit:
        raise ClientError(f"{name} has more than {limit} bytes. Replace it with a file of the expected kind.")
    return content


def parse_object(content: bytes, name: str) -> dict[str, Any]:
    """Parse one JSON object; raises ClientError that calls it `name` and describes the error."""
    if not content.strip():
        raise ClientError(f"{name} is empty. It must contain one JSON object.")
    parsed = parse(content, name)
    if not isinstance(parsed, dict):
        raise ClientError(f"{name} contains {describe(parsed)}. It must contain one JSON object.")
    return parsed


def parse(content: bytes, name: str) -> Any:
    """Parse UTF-8 JSON of limited size; raises ClientError that calls it `name` and describes the error."""
    if content.startswith(_FOREIGN):
        raise ClientError(f"{name} is encoded as UTF-16 or UTF-32. Save it as UTF-8.")
    try:
        return json.loads(content.decode("utf-8-sig"), object_pairs_hook=unique, parse_int=to_int)
    except UnicodeDecodeError as error:
        byte = content[error.start]
        raise ClientError(f"{name} is not UTF-8 (byte 0x{byte:02x} at {error.start}). Save it as UTF-8.") from error
    except RecursionError as error:
        raise ClientError(f"{name} is not usable: the JSON is nested too deeply") from error
    except ValueError as error:
        raise ClientError(f"{name} is not valid JSON: {error}") from error


def describe(value: object) -> str:
    """Return the kind of a JSON value, for example `a list`."""
    return _KINDS.get(type(value), "null")


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object built from its members; raises ValueError for a duplicate name, which `json` accepts."""
    members: dict[str, Any] = {}
    for name, value in pairs:
        if name in members:
            raise ValueError(f"it contains {name[:50]!r} twice")
        members[name] = value
    return members


def to_int(digits: str) -> int:
    """Convert digits to an integer. Python converts at most 4300 digits, and its error recommends a Python setting."""
    try:
        return int(digits)
    except ValueError:
        raise ValueError(f"it contains a number of {len(digits)} digits") from None
