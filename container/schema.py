"""The schema of the hyperparameters: types, ranges, and conversion of values."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

SCHEMA_PATH = Path(__file__).parent.parent / "hyperparameters.schema.json"

_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}


def read_schema() -> dict[str, Any]:
    """Read the JSON Schema (2020-12) of the hyperparameters."""
    schema: dict[str, Any] = json.loads(SCHEMA_PATH.read_text(encoding="utf-8"))
    return schema


def convert(value: Any, entry: Mapping[str, Any]) -> Any:
    """Turn `value` into the type of its `entry` in the schema, if it can be: what cannot is for the schema to refuse.

    Values may be strings (`"240"`), JSON inside strings (`"\\"fcn\\""`) or JSON values.
    """
    value, kind = _decode(value), entry.get("type")
    if "anyOf" in entry:  # a word, or something in JSON, encoded once or twice
        value = _decode(value)
        return value.strip() if isinstance(value, str) else value
    if "pattern" in entry:
        return _integers(value)
    if kind == "object":
        return _by_id(value)
    if kind == "string" and isinstance(value, str):
        return value.strip()
    if kind == "string" and isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    if kind == "boolean":
        return value if isinstance(value, bool) else _BOOLEANS.get(str(value).strip().lower(), value)
    if True in entry.get("enum", ()) and isinstance(value, (str, int)):  # a boolean that may be left to us
        text = str(value).strip().lower()
        return _BOOLEANS.get(text, text if text in entry["enum"] else value)
    if kind in ("integer", "number") and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:  # an integer beyond any float
            return str(value)
        except (TypeError, ValueError):
            return value
        if not math.isfinite(number) or (kind == "integer" and abs(number) >= 2**53):
            return str(value)  # JSON Schema takes 1e20 for an integer
        return int(number) if number.is_integer() and kind == "integer" else number
    return value


def _integers(value: Any) -> Any:
    """Write a list of integers as `10,20`, whichever way it came: a list, a list in a string, with a last comma."""
    if isinstance(value, list):
        value = ",".join(str(_decode(item)) for item in value)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        return value
    text = value.strip()
    if text[:1] + text[-1:] in ("[]", "()"):
        text = text[1:-1].strip()
    return text.removesuffix(",").strip()


def _by_id(value: Any) -> Any:
    """Write a list as an object by position: `["sky", "road"]` → `{"0": "sky", "1": "road"}`."""
    value = _decode(value)  # a string of a string comes from SDKs that encode what is encoded
    if isinstance(value, list):
        return {str(position): name for position, name in enumerate(value)}
    if isinstance(value, dict):
        return {str(int(key)) if str(key).isdecimal() else str(key): name for key, name in value.items()}
    return value


def _decode(value: Any) -> Any:
    """Undo JSON inside a string: `'"fcn"'` → `'fcn'`; what is no JSON string, list or object stays as it is."""
    if isinstance(value, str) and value.strip().startswith(('"', "[", "{")):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def describe_range(entry: Mapping[str, Any]) -> str:
    """Render a property's type and range: `integer > 16`, `0 < number ≤ 1`, `fcn, psp or deeplab`."""
    if "x-range" in entry:
        return str(entry["x-range"])
    if "enum" in entry:
        return _one_of(entry["enum"])
    if "pattern" in entry:
        return "comma-separated integers"
    if entry["type"] == "object":
        return "a JSON list of names, or an object of ids and names"
    low = next(
        (f"{entry[key]} {sign} " for key, sign in (("minimum", "≤"), ("exclusiveMinimum", "<")) if key in entry), ""
    )
    high = next(
        (f" {sign} {entry[key]}" for key, sign in (("maximum", "≤"), ("exclusiveMaximum", "<")) if key in entry), ""
    )
    return f"{low}{entry['type']}{high}"


def reason_against(entry: Mapping[str, Any], algorithm: str) -> str:
    """Say why a hyperparameter has no effect with this algorithm; an empty text when it has."""
    return str(entry.get("x-not-with", {}).get(algorithm, ""))


def lacking(entry: Mapping[str, Any], settled: Mapping[str, Any]) -> str:
    """Say which other hyperparameter keeps this one from having an effect, by its value; an empty text when none."""
    for name, values in entry.get("x-only-with", {}).items():
        if settled[name] not in values:
            return f"it belongs to {name}={_one_of(values)}, and {name} is {settled[name]}"
    return ""


def _one_of(values: Sequence[Any]) -> str:
    *others, last = map(str, values)
    return f"{', '.join(others)} or {last}" if others else last


def allows(entry: Mapping[str, Any], value: Any) -> bool:
    """Say whether a converted value is one that its entry, an enum, a pattern or a range of numbers, allows."""
    if "enum" in entry:
        return value in entry["enum"]
    if "pattern" in entry:
        return isinstance(value, str) and re.search(entry["pattern"], value) is not None
    if type(value) is not int and (entry["type"] == "integer" or type(value) is not float):
        return False
    low, high = entry.get("minimum", -math.inf), entry.get("maximum", math.inf)
    return bool(low <= value <= high and value > entry.get("exclusiveMinimum", -math.inf))
