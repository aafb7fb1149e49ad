"""What users and SDKs write for a value, turned into the type that the schema gives it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}


def convert(value: Any, entry: Mapping[str, Any]) -> Any:
    """Turn `value` into the type of its `entry` in the schema, if it can be: what cannot is for the schema to refuse.

    Values may be strings (`"240"`), JSON inside strings (`"\\"fcn\\""`) or JSON values.
    """
    value, kind = _decode(value), entry.get("type")
    if "pattern" in entry:
        return _integers(value)
    if kind == "string" and isinstance(value, str):
        return value.strip()
    if kind == "string" and isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    if kind == "boolean":
        return value if isinstance(value, bool) else _BOOLEANS.get(str(value).strip().lower(), value)
    if kind in ("integer", "number") and not isinstance(value, bool):
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            return value
        if not math.isfinite(number):
            return str(value)
        return int(number) if number.is_integer() and kind == "integer" and abs(number) < 2**53 else number
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


def _decode(value: Any) -> Any:
    """Undo JSON inside a string: `'"fcn"'` → `'fcn'`; what is no JSON string or list stays as it is."""
    if isinstance(value, str) and value.strip().startswith(('"', "[")):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value
