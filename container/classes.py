"""`classes.json` in the model directory: the names and colours that came with the training data."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path

from container import artifacts
from container.errors import ClientError


@dataclasses.dataclass(frozen=True)
class ClassEntry:
    """What is known of one class; `color` is (red, green, blue)."""

    name: str | None = None
    color: tuple[int, int, int] | None = None


def read_classes(model_dir: Path) -> dict[int, ClassEntry]:
    """Read what is known of the classes, by id: nothing when the file is absent; raises ClientError that names it."""
    path = model_dir / artifacts.CLASSES
    if not path.is_file():
        return {}
    try:
        return {int(entry["id"]): _read_entry(entry) for entry in json.loads(path.read_text())}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ClientError(
            f'{path} must be a list of {{"id": 0, "name": "…", "color": "#rrggbb"}}: {type(error).__name__}: {error}'
        ) from error


def _read_entry(entry: dict[str, str]) -> ClassEntry:
    name, color = entry.get("name"), entry.get("color")
    if color is None:
        return ClassEntry(name)
    if not re.fullmatch("#[0-9a-fA-F]{6}", color):
        raise ValueError(f"{color} is no colour")
    red, green, blue = bytes.fromhex(color[1:])
    return ClassEntry(name, (red, green, blue))


def called(classes: Mapping[int, ClassEntry], label: int) -> str:
    """Call a class by its name, without one "class 3"."""
    name = classes[label].name if label in classes else None
    return name or f"class {label}"


def describe_classes(classes: Mapping[int, ClassEntry]) -> list[dict[str, object]]:
    """Describe the classes as `classes.json` holds them."""
    return [
        {
            "id": label,
            **({"name": entry.name} if entry.name is not None else {}),
            **({"color": "#{:02x}{:02x}{:02x}".format(*entry.color)} if entry.color is not None else {}),
        }
        for label, entry in classes.items()
    ]
