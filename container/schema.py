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
    """Convert `value` to the type of its schema `entry`. Values that cannot be converted fail in the validation.

    Values can be strings (`"240"`), JSON in strings (`"\\"fcn\\""`), or JSON values.
    """
    value, kind = _decode(value), entry.get("type")
    if "anyOf" in entry:  # a word or JSON, encoded once or twice
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
    if True in entry.get("enum", ()) and isinstance(value, (str, int)):  # a Boolean value or "auto"
        text = str(value).strip().lower()
        return _BOOLEANS.get(text, text if text in entry["enum"] else value)
    if kind in ("integer", "number") and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:  # an integer that is larger than any float
            return str(value)
        except (TypeError, ValueError):
            return value
        if not math.isfinite(number) or (kind == "integer" and abs(number) >= 2**53):
            return str(value)  # JSON Schema accepts 1e20 as an integer
        return int(number) if number.is_integer() and kind == "integer" else number
    return value


def _integers(value: Any) -> Any:
    """Format a list of integers as `10,20`, from a list, a list in a string, or a string with a trailing comma."""
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
    """Convert a list to an object by position: `["sky", "road"]` → `{"0": "sky", "1": "road"}`."""
    value = _decode(value)  # some SDKs encode strings twice
    if isinstance(value, list):
        return {str(position): name for position, name in enumerate(value)}
    if isinstance(value, dict):
        return {str(int(key)) if str(key).isdecimal() else str(key): name for key, name in value.items()}
    return value


def _decode(value: Any) -> Any:
    """Decode a JSON string, list, or object in a string: `'"fcn"'` → `'fcn'`; other values are not changed."""
    if isinstance(value, str) and value.strip().startswith(('"', "[", "{")):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def describe_range(entry: Mapping[str, Any]) -> str:
    """Return the type and range of a property: `integer > 16`, `0 < number ≤ 1`, `fcn, psp or deeplab`."""
    if "x-range" in entry:
        return str(entry["x-range"])
    if "enum" in entry:
        return _one_of(entry["enum"])
    if "pattern" in entry:
        return "comma-separated integers"
    if entry["type"] == "object":
        return "a JSON list of names, or an object with IDs and names"
    low = next(
        (f"{entry[key]} {sign} " for key, sign in (("minimum", "≤"), ("exclusiveMinimum", "<")) if key in entry), ""
    )
    high = next(
        (f" {sign} {entry[key]}" for key, sign in (("maximum", "≤"), ("exclusiveMaximum", "<")) if key in entry), ""
    )
    return f"{low}{entry['type']}{high}"


def reason_against(entry: Mapping[str, Any], algorithm: str) -> str:
    """Return why a hyperparameter has no effect with this algorithm; an empty string if it has an effect."""
    return str(entry.get("x-not-with", {}).get(algorithm, ""))


def lacking(entry: Mapping[str, Any], resolved: Mapping[str, Any]) -> str:
    """Return which other hyperparameter value disables this hyperparameter; an empty string if no value does.

    `x-only-with` contains the required values of other hyperparameters. A list contains alternatives. If the job meets
    none of them, the reason comes from the last alternative whose first condition is met, or else from the first one.
    """
    reason = ""
    alternatives = entry.get("x-only-with", {})
    for conditions in alternatives if isinstance(alternatives, list) else [alternatives]:
        missing = [name for name, values in conditions.items() if resolved[name] not in values]
        if not missing:
            return ""
        if not reason or missing[0] != next(iter(conditions)):
            name = missing[0]
            reason = f"it belongs to {name}={_one_of(conditions[name])}, and {name} is {resolved[name]}"
    return reason


def _one_of(values: Sequence[Any]) -> str:
    *others, last = map(str, values)
    return f"{', '.join(others)} or {last}" if others else last


def allows(entry: Mapping[str, Any], value: Any) -> bool:
    """Return whether a schema entry (an enum, a pattern, or a range of numbers) allows a converted value."""
    if "enum" in entry:
        return value in entry["enum"]
    if "pattern" in entry:
        return isinstance(value, str) and re.search(entry["pattern"], value) is not None
    if type(value) is not int and (entry["type"] == "integer" or type(value) is not float):
        return False
    low, high = entry.get("minimum", -math.inf), entry.get("maximum", math.inf)
    return bool(low <= value <= high and value > entry.get("exclusiveMinimum", -math.inf))
