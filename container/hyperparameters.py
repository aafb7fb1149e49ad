"""The hyperparameters of a job, as defined in `hyperparameters.schema.json`."""

from __future__ import annotations

import dataclasses
import difflib
import json
import logging
import sys
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from sagemaker_training import params

from container.errors import ClientError
from container.geometry.windows import Windows
from container.image_range import Range, parse_range
from container.schema import allows, convert, describe_range, lacking, read_schema, reason_against

LOG = logging.getLogger(__name__)

_PLATFORM_PREFIXES = (params.SAGEMAKER_PREFIX, params.TUNING_METRIC_PARAM)


@dataclasses.dataclass(frozen=True)
class Hyperparameters:
    """Valid hyperparameters. Each field is a property of the schema, without leading underscores."""

    num_classes: int
    num_training_samples: int  # 0 if not set, until the samples are counted
    algorithm: str
    backbone: str | None  # None if the algorithm has no backbone
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
    ps_port: int
    network_interface: str | None  # None: the interface that SageMaker AI provides
    precision_dtype: str
    shuffle_buffer: int
    shuffle_buffer_mb: int
    max_bad_records: int
    quantize: bool | Literal["auto"]
    quantize_tolerance: float
    gradient_scale: str
    rmsprop_centered: bool
    checkpoint_minutes: float
    resume: str
    report_minutes: float | None
    seed: int | None
    reset_head: bool
    freeze_backbone: bool
    freeze_batchnorm: bool
    audit: str | None  # None: depends on the input mode
    exif_orientation: str
    image_range: str | None
    window: int | None
    overlap: float
    class_names: Mapping[str, str] | None  # by class ID in decimal
    tensorboard: bool
    class_weights: str | list[float] | None
    loss: str
    focal_gamma: float
    ohem_share: float
    rare_crops: float
    warmup_iterations: int
    ema: float
    accumulate: int
    clip_norm: float | None
    augmentation: str | Mapping[str, Any]
    on_divergence: str
    validation: str
    validation_interval: int

    @property
    def crop(self) -> int:
        """Side of the training crop in pixels: `crop_size` rounded up to a multiple of 8."""
        return -(-self.crop_size // 8) * 8

    @property
    def windows(self) -> Windows | None:
        """The windows in which large images are processed, or None."""
        return Windows(self.window, self.overlap) if self.window else None

    @property
    def scaled_range(self) -> Range | None:
        """The samples of 16-bit images that become 0 and 255, or None if samples keep their high byte."""
        return parse_range(self.image_range) if self.image_range else None

    @property
    def named_classes(self) -> dict[int, str]:
        """The names in `_class_names`, by class ID."""
        return {int(label): name for label, name in (self.class_names or {}).items()}

    @property
    def steps(self) -> list[int]:
        """Epochs in `lr_scheduler_step`, in ascending order."""
        return sorted(int(epoch) for epoch in (self.lr_scheduler_step or "").split(",") if epoch.strip())

    @property
    def sets_rate(self) -> bool:
        """Whether the optimizer uses the learning rate. adadelta does not."""
        return self.optimizer != "adadelta"

    @property
    def counts_classes(self) -> bool:
        """Whether the loss or the crops depend on class frequencies."""
        return bool(self.rare_crops) or isinstance(self.class_weights, str)

    def as_dict(self) -> dict[str, Any]:
        """Return the values by their names in the schema, without values that are None."""
        return {
            name: value
            for name, entry in read_schema()["properties"].items()
            if not entry.get("x-no-effect") and (value := getattr(self, name.lstrip("_"))) is not None
        }


def as_request(values: Mapping[str, Any]) -> str:
    """Return values as JSON of strings, which is the `HyperParameters` of the SageMaker API and valid Python."""
    return json.dumps(
        {name: json.dumps(value) if isinstance(value, (dict, list)) else str(value) for name, value in values.items()}
    )


def load(raw: Mapping[str, Any], streamed: bool = False) -> Hyperparameters:
    """Validate the hyperparameters from SageMaker AI.

    Values can be strings (`"240"`), JSON in strings (`"\\"fcn\\""`), or JSON values. Keys of SageMaker AI are ignored.
    With `streamed`, num_training_samples is required, because the samples of a stream cannot be counted in advance.
    Raises one ClientError that lists all errors.
    """
    schema = read_schema()
    properties = schema["properties"]
    values = {
        name: convert(value, properties.get(name, {}))
        for name, value in raw.items()
        if not name.startswith(_PLATFORM_PREFIXES)
    }
    if values.get("lr_scheduler_step") == "":
        del values["lr_scheduler_step"]
    errors = [
        message for error in Draft202012Validator(schema).iter_errors(values) for message in _describe(error, schema)
    ]
    if streamed and "num_training_samples" not in values:
        errors.append("num_training_samples is required in Pipe mode")
    for check in (_check_class_names, _check_class_weights, _check_augmentation, _check_image_range):
        errors += check(values)
    if errors:
        errors.sort()
        raise ClientError(f"{len(errors)} hyperparameter{'s are' if len(errors) > 1 else ' is'} not valid", errors)
    unused = [name for name in values if properties[name].get("x-no-effect")]
    if unused:
        LOG.info("%s: accepted for compatibility with the built-in algorithm, without effect", ", ".join(unused))
    defaults = {name: entry.get("default") for name, entry in properties.items()}
    job = {**defaults, "num_training_samples": 0, **values}
    for name, entry in properties.items():
        if reason := reason_against(entry, job["algorithm"]):
            if name in values:
                LOG.warning("%s has no effect: %s %s", name, job["algorithm"], reason)
            job[name] = None
        elif job[name] != defaults[name] and (reason := lacking(entry, job)):
            LOG.warning("%s has no effect: %s", name, reason)
    changed = {name: value for name, value in values.items() if value != defaults[name]}
    for reason in _find_unused_options(changed, job):
        LOG.warning("%s", reason)
    return Hyperparameters(
        **{name.lstrip("_"): value for name, value in job.items() if not properties[name].get("x-no-effect")}
    )


def _find_unused_options(changed: Mapping[str, Any], job: Mapping[str, Any]) -> Iterator[str]:
    """Yield warnings about options without effect, for rules that are not in the schema."""
    if "_overlap" in changed and job["_window"] is None:
        yield "_overlap has no effect without _window"
    if job["lr_scheduler"] == "step":
        steps = sorted(int(epoch) for epoch in job["lr_scheduler_step"].split(","))
        if late := [epoch for epoch in steps if epoch >= job["epochs"]]:
            listed = ", ".join(map(str, late))
            yield (
                f"lr_scheduler_step={job['lr_scheduler_step']}: {listed} {'have' if late[1:] else 'has'} no effect "
                f"with epochs={job['epochs']}, whose last epoch is {job['epochs'] - 1}. Decrease "
                f"{'them' if late[1:] else 'it'}, or increase epochs"
            )
            if len(late) == len(steps) and "lr_scheduler_factor" in changed:
                yield "lr_scheduler_factor has no effect: no epoch of lr_scheduler_step is reached"
    if job["_report_minutes"] == 0:
        if job["_quantize"] is True:
            yield "_quantize=True has no effect: _report_minutes=0 disables the evaluation that an int8 model needs"
        if "_quantize_tolerance" in changed and job["_quantize"] is not False:
            yield "_quantize_tolerance has no effect: with _report_minutes=0, the job writes no int8 model"
    if job["_shuffle_buffer"] == 0 and "_shuffle_buffer_mb" in changed:
        yield "_shuffle_buffer_mb has no effect with _shuffle_buffer=0"


def markdown_table(group: str) -> str:
    """Render the hyperparameters of one `x-group` as a Markdown table."""
    rows = ["| name | type, range | default | description |", "| --- | --- | --- | --- |"]
    schema = read_schema()
    for name, entry in schema["properties"].items():
        if entry["x-group"] == group:
            default = "required" if name in schema["required"] else entry.get("default", "–")
            values = describe_range(entry) + (", tunable" if entry.get("x-tunable") else "")
            rows.append(f"| `{name}` | {values} | {default} | {entry['description']} |")
    return "\n".join(rows)


def _describe(error: ValidationError, schema: Mapping[str, Any]) -> list[str]:
    """Return the error messages, each with the name and the valid values."""
    if error.validator == "additionalProperties":
        return [_unknown(name, schema) for name in error.instance if name not in schema["properties"]]
    if error.validator == "required":
        missing = [name for name in error.validator_value if name not in error.instance]
        reason = "is required"
        if "then" in error.absolute_schema_path:
            reason += " with lr_scheduler=step"
        return [f"{name} {reason}" for name in missing if repr(name) in error.message]
    name = str(error.absolute_path[0])
    if isinstance(error.instance, dict) and (parts := _describe_parts(error, name)):
        return parts
    return [f"{name} must be {describe_range(schema['properties'][name])}, not {error.instance!r}"]


def _describe_parts(error: ValidationError, name: str) -> list[str]:
    """Return the error messages for the values of a JSON object."""
    messages = []
    for part in error.context or ():
        if part.validator == "additionalProperties":
            known = part.schema["properties"]
            messages += [_unknown(key, part.schema, f" of {name}") for key in error.instance if key not in known]
        elif part.path:
            messages.append(f"{part.path[0]} of {name} must be {describe_range(part.schema)}, not {part.instance!r}")
    return messages


def _check_class_names(values: Mapping[str, Any]) -> list[str]:
    """Return the error if `_class_names` contains invalid class IDs."""
    names, count = values.get("_class_names"), values.get("num_classes")
    if not isinstance(names, dict) or type(count) is not int:
        return []
    invalid = sorted((label for label in names if label.isdecimal() and int(label) >= count), key=int)
    if not invalid:
        return []
    listed = ", ".join(f"{label} ({names[label]})" for label in invalid[:10])
    return [f"_class_names contains class IDs that num_classes={count} excludes: {listed}"]


def _check_class_weights(values: Mapping[str, Any]) -> list[str]:
    """Return the error of a list in `_class_weights`, for rules that the schema cannot express."""
    weights, count = values.get("_class_weights"), values.get("num_classes")
    if not isinstance(weights, list) or not all(_is_number(weight) for weight in weights):
        return []
    if type(count) is int and len(weights) != count:
        return [f"_class_weights has {len(weights)} numbers, but num_classes is {count}. Set one number per class"]
    if any(weight != weight for weight in weights) or not any(weights):
        return ["_class_weights must be numbers, not NaN, and at least one must be greater than 0"]
    return []


def _check_augmentation(values: Mapping[str, Any]) -> list[str]:
    """Return the error of the object in `_augmentation`, for rules that the schema cannot express."""
    augmentation = values.get("_augmentation")
    if not isinstance(augmentation, dict):
        return []
    scale = augmentation.get("scale", [1, 1])
    numbers = [value for value in augmentation.values() if _is_number(value)]
    if isinstance(scale, list) and len(scale) == 2 and all(map(_is_number, scale)):
        if scale[0] > scale[1]:
            return [f"scale of _augmentation must be [smallest, largest], not {scale}"]
        numbers += scale
    if any(number != number for number in numbers):
        return ["the values in _augmentation must be numbers, not NaN"]
    return []


def _check_image_range(values: Mapping[str, Any]) -> list[str]:
    """Return the error of `_image_range`, for rules that the schema cannot express."""
    text: Any = values.get("_image_range")
    if not allows(read_schema()["properties"]["_image_range"], text):
        return []
    try:
        parse_range(text)
    except ValueError as error:
        return [f"_image_range {error}"]
    return []


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _unknown(name: str, schema: Mapping[str, Any], owner: str = "") -> str:
    near = difflib.get_close_matches(name, schema["properties"], n=1)
    return f"{name}{owner} is unknown" + (f" (did you mean {near[0]}?)" if near else "")


if __name__ == "__main__":
    print(markdown_table(sys.argv[1]))
