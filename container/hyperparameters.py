"""The job's hyperparameters, as `hyperparameters.schema.json` defines them."""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from container.errors import ClientError

SCHEMA_PATH = Path(__file__).parent.parent / "hyperparameters.schema.json"

_PLATFORM_PREFIXES = ("sagemaker_", "_tuning_objective_metric")
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}


@dataclasses.dataclass(frozen=True)
class Hyperparameters:
    """A validated job; each field is the schema's property of that name, without leading underscores."""

    num_classes: int
    num_training_samples: int
    algorithm: str
    backbone: str
    use_pretrained_model: bool
    base_size: int
    crop_size: int
    epochs: int
    mini_batch_size: int
    validation_mini_batch_size: int
    optimizer: str
    learning_rate: float
    lr_scheduler: str
    lr_scheduler_factor: float
    lr_scheduler_step: str | None
    momentum: float
    weight_decay: float
    gamma1: float
    gamma2: float
    early_stopping: bool
    early_stopping_min_epochs: int
    early_stopping_patience: int
    early_stopping_tolerance: float
    syncbn: bool
    aux_loss: bool
    aux_weight: float
    hybrid: bool
    workers: int
    logging_frequency: int
    kvstore: str
    precision_dtype: str
    shuffle_buffer: int
    shuffle_buffer_mb: int
    max_bad_records: int
    quantize: bool
    quantize_tolerance: float
    report_minutes: float | None
    seed: int | None

    @property
    def crop(self) -> int:
        """Side of the training crop in pixels: `crop_size` rounded up to a multiple of 8."""
        return -(-self.crop_size // 8) * 8

    @property
    def steps(self) -> list[int]:
        """Epochs of `lr_scheduler_step`, ascending."""
        return sorted(int(epoch) for epoch in (self.lr_scheduler_step or "").split(",") if epoch.strip())

    def as_dict(self) -> dict[str, Any]:
        """Values under the schema's own names, without those that were not set."""
        return {
            name: value
            for name in read_schema()["properties"]
            if (value := getattr(self, name.lstrip("_"))) is not None
        }


def read_schema() -> dict[str, Any]:
    """Read the JSON Schema (2020-12) of the hyperparameters."""
    schema: dict[str, Any] = json.loads(SCHEMA_PATH.read_text())
    return schema


def load(raw: Mapping[str, Any]) -> Hyperparameters:
    """Validate hyperparameters as the platform delivers them.

    Values may be strings (`"240"`), JSON inside strings (`"\\"fcn\\""`) or JSON values; platform keys
    are dropped. Raises one ClientError that lists every fault.
    """
    schema = read_schema()
    values = {
        name: _convert(value, schema["properties"].get(name, {}).get("type"))
        for name, value in raw.items()
        if not name.startswith(_PLATFORM_PREFIXES)
    }
    faults = sorted(
        fault for error in Draft202012Validator(schema).iter_errors(values) for fault in _describe(error, schema)
    )
    if faults:
        raise ClientError(
            f"{len(faults)} hyperparameter{'s are' if len(faults) > 1 else ' is'} not valid: " + "; ".join(faults)
        )
    defaults = {name: entry.get("default") for name, entry in schema["properties"].items()}
    return Hyperparameters(**{name.lstrip("_"): value for name, value in {**defaults, **values}.items()})


def markdown_table() -> str:
    """Render the schema as the README's table of hyperparameters."""
    rows = ["| name | type, range | default | tunable | meaning |", "| --- | --- | --- | --- | --- |"]
    schema = read_schema()
    for name, entry in schema["properties"].items():
        default = "required" if name in schema["required"] else entry.get("default", "–")
        notes = " *Ours, not the built-in's.*" if entry.get("x-extension") else ""
        rows.append(
            f"| `{name}` | {_range(entry)} | {default} | {'yes' if entry.get('x-tunable') else ''} "
            f"| {entry['description']}{notes} |"
        )
    return "\n".join(rows)


def _convert(value: Any, kind: str | None) -> Any:
    """Turn a string into the schema's type; what does not convert stays as it is, for the schema to refuse."""
    value = _decode(value)
    if kind == "string" and isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    if kind == "boolean":
        return value if isinstance(value, bool) else _BOOLEANS.get(str(value).strip().lower(), value)
    if kind in ("integer", "number") and not isinstance(value, bool):
        try:
            number = float(value)
        except (TypeError, ValueError):
            return value
        if not math.isfinite(number):
            return str(value)
        return int(number) if number.is_integer() and kind == "integer" and abs(number) < 2**53 else number
    return value


def _decode(value: Any) -> Any:
    """Undo JSON inside a string: `'"fcn"'` → `'fcn'`; what is not a JSON string stays as it is."""
    if isinstance(value, str) and value.strip().startswith('"'):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def _describe(error: ValidationError, schema: Mapping[str, Any]) -> list[str]:
    """Say what is wrong, by name, and what would be right."""
    if error.validator == "additionalProperties":
        return [_unknown(name, schema) for name in error.instance if name not in schema["properties"]]
    if error.validator == "required":
        missing = [name for name in error.validator_value if name not in error.instance]
        reason = "is required"
        if "then" in error.absolute_schema_path:
            reason += " with lr_scheduler=step"
        return [f"{name} {reason}" for name in missing if repr(name) in error.message]
    name = str(error.absolute_path[0])
    return [f"{name} must be {_range(schema['properties'][name])}, not {error.instance!r}"]


def _unknown(name: str, schema: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(name, schema["properties"], n=1)
    return f"{name} is unknown" + (f" (did you mean {near[0]}?)" if near else "")


def _range(entry: Mapping[str, Any]) -> str:
    """Render a property's type and range: `integer > 16`, `0 < number ≤ 1`, `fcn, psp or deeplab`."""
    if "enum" in entry:
        return ", ".join(entry["enum"][:-1]) + " or " + entry["enum"][-1]
    if "pattern" in entry:
        return "comma-separated integers"
    low = next(
        (f"{entry[key]} {sign} " for key, sign in (("minimum", "≤"), ("exclusiveMinimum", "<")) if key in entry), ""
    )
    high = next(
        (f" {sign} {entry[key]}" for key, sign in (("maximum", "≤"), ("exclusiveMaximum", "<")) if key in entry), ""
    )
    return f"{low}{entry['type']}{high}"


if __name__ == "__main__":
    print(markdown_table())
