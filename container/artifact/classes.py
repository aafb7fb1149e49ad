"""`classes.json` in the model directory: names and colors of the classes."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from container.artifact import model_directory
from container.artifact.json_files import describe, parse, read_limited
from container.errors import ClientError

_LARGEST = 254  # 255 means ignore
_FORM = 'The file must contain a list such as [{"id": 0, "name": "road", "color": "#804080"}].'


@dataclasses.dataclass(frozen=True)
class ClassEntry:
    """Name and color of a class, if known; `color` is (red, green, blue)."""

    name: str | None = None
    color: tuple[int, int, int] | None = None


def read_classes(model_dir: Path) -> dict[int, ClassEntry]:
    """Read names and colors by class ID: empty if the file does not exist; raises ClientError that names the file."""
    path = model_dir / model_directory.CLASSES
    try:
        content = read_limited(path)
    except FileNotFoundError:
        return {}
    entries = parse(content, str(path))
    if not isinstance(entries, list):
        raise ClientError(f"{path} contains {describe(entries)}. {_FORM}")
    classes: dict[int, ClassEntry] = {}
    for number, entry in enumerate(entries):
        try:
            label, known = _read_entry(entry)
            if label in classes:
                raise ValueError(f"the file contains the id {label} twice")
        except ValueError as error:
            raise ClientError(f"{path}, entry {number + 1}: {error}. {_FORM}") from error
        classes[label] = known
    return classes


def _read_entry(entry: Any) -> tuple[int, ClassEntry]:
    if not isinstance(entry, dict):
        raise ValueError(f"it is {describe(entry)}, not an object")
    label, name, color = _read_id(entry.get("id")), entry.get("name"), entry.get("color")
    if name is not None:
        _check_text("name", name)
    if color is None:
        return label, ClassEntry(name)
    _check_text("color", color)
    if not re.fullmatch("#[0-9a-fA-F]{6}", color):
        raise ValueError(f"the color is {color[:50]!r}, not in the format #rrggbb")
    red, green, blue = bytes.fromhex(color[1:])
    return label, ClassEntry(name, (red, green, blue))


def _read_id(value: Any) -> int:
    """Return a class ID, which can be a string of digits."""
    if isinstance(value, str) and re.fullmatch("[0-9]{1,3}", value):
        value = int(value)
    if type(value) is not int:
        raise ValueError(f"the id is {describe(value)}, not an integer from 0 to {_LARGEST}")
    if not 0 <= value <= _LARGEST:
        raise ValueError(f"the id is {str(value)[:20]}, not an integer from 0 to {_LARGEST}")
    return value


def _check_text(key: str, value: Any) -> None:
    if not isinstance(value, str):
        raise ValueError(f"the {key} is {describe(value)}, not a string")
    if re.search("[\ud800-\udfff]", value):  # half a character, which no response can contain
        raise ValueError(f"the {key} is not valid Unicode text")


def called(classes: Mapping[int, ClassEntry], label: int) -> str:
    """Return the name of a class, or for example "class 3" if the class has no name."""
    name = classes[label].name if label in classes else None
    return name or f"class {label}"


def describe_classes(classes: Mapping[int, ClassEntry]) -> list[dict[str, object]]:
    """Return the classes in the format of `classes.json`."""
    return [
        {
            "id": label,
            **({"name": entry.name} if entry.name is not None else {}),
            **({"color": "#{:02x}{:02x}{:02x}".format(*entry.color)} if entry.color is not None else {}),
        }
        for label, entry in classes.items()
    ]
