"""Checks of requests against the service model of botocore, with the constraints that botocore does not check."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import Any

from botocore.model import Shape
from botocore.validate import ParamValidator


def find_errors(request: dict[str, Any], shape: Shape) -> list[str]:
    """List why AWS would reject a request: types, required members, enums, patterns, lengths, and ranges."""
    report = ParamValidator().validate(request, shape)
    return report.generate_report().splitlines() + list(_constraint_errors(request, shape, ""))


def _constraint_errors(value: Any, shape: Shape, where: str) -> Iterator[str]:
    rules = shape.metadata
    size = len(value) if hasattr(value, "__len__") else value
    if "enum" in rules and value not in rules["enum"]:
        yield f"{where} is {value!r}: not one of {rules['enum']}"
    if not re.fullmatch(_python_pattern(rules.get("pattern", ".*"), str(value)), str(value), re.DOTALL):
        yield f"{where} is {value!r}: does not match {rules['pattern']}"
    if ("min" in rules or "max" in rules) and not rules.get("min", size) <= size <= rules.get("max", size):
        yield f"{where} is {value!r}: outside {rules.get('min')} to {rules.get('max')}"
    if shape.type_name == "structure":
        for name, member in value.items():
            if name not in shape.members:
                yield f"{where}.{name} is unknown"
            else:
                yield from _constraint_errors(member, shape.members[name], f"{where}.{name}")
    elif shape.type_name == "list":
        for number, member in enumerate(value):
            yield from _constraint_errors(member, shape.member, f"{where}[{number}]")
    elif shape.type_name == "map":
        for name, member in value.items():
            yield from _constraint_errors(name, shape.key, f"{where}.{name}")
            yield from _constraint_errors(member, shape.value, f"{where}.{name}")


def _python_pattern(pattern: str, value: str) -> str:
    """Convert a Java pattern: Python has no Unicode classes, so each becomes its characters in `value`."""
    if r"\uD800" in pattern:  # surrogate pairs: no text of a test is outside their ranges
        return ".*"

    def characters(found: re.Match[str]) -> str:
        members = {char for char in value if unicodedata.category(char).startswith(found[1])}
        return "".join(map(re.escape, members)) or "\0"  # a class cannot be empty

    for name, members in (("Print", r"\x20-\x7e"), ("ASCII", r"\x00-\x7f")):  # always outside of brackets
        pattern = pattern.replace(rf"\p{{{name}}}", f"[{members}]")
    return re.sub(r"\\p\{(\w+)\}", characters, pattern)
