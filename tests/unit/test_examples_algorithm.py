"""The CreateAlgorithm request: accepted by the service model of botocore, equal to the schema and to the log lines."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import boto3
import jsonschema
import pytest

from container.data.channels import check_channels
from container.environment import Channel, Environment
from container.hyperparameters import load
from container.schema import convert
from tests.conftest import PROGRAM
from tests.service_model import find_errors

IMAGE = "111111111111.dkr.ecr.us-west-2.amazonaws.com/sagemaker-semantic-segmentation:gpu"
SCHEMA = json.loads((PROGRAM / "hyperparameters.schema.json").read_text())
CLIENT = boto3.client("sagemaker", region_name="us-west-2")

# lines of the published job of the built-in algorithm (VOC 2012, 16 December 2020), and their values
PUBLISHED = {
    "train:loss": ("#quality_metric. host: algo-1, epoch: 0, train loss: 2.4600368495825884 .", 2.4600368495825884),
    "train:throughput": (
        "#throughput_metric. host: algo-1, epoch: 0, train throughput: 73.2122990247 samples/sec.",
        73.2122990247,
    ),
    "train:progress": ("#progress_metric: host=algo-1, completed 3 % of epochs", 3),
    "validation:mIOU": (
        "#quality_metric. host: algo-1, epoch: 0, validation mIOU: 0.09640348511110089 .",
        0.09640348511110089,
    ),
    "validation:pixel_accuracy": (
        "#quality_metric. host: algo-1, epoch: 0, validation pixel_accuracy: 0.7104060199108813 .",
        0.7104060199108813,
    ),
    "validation:throughput": (
        "#throughput_metric. host: algo-1, epoch: 0, validation throughput: 121.102919614 samples/sec.",
        121.102919614,
    ),
}


def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("boto3_algorithm", PROGRAM / "examples/boto3_algorithm.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


EXAMPLE = example()


def request(image: str = IMAGE) -> dict[str, Any]:
    return dict(EXAMPLE.create_request(CLIENT, "semantic-segmentation", image))


REQUEST = request()
TRAINING = REQUEST["TrainingSpecification"]
SPECIFIED = {each["Name"]: each for each in TRAINING["SupportedHyperParameters"]}
CHANNELS = {each["Name"]: each for each in TRAINING["TrainingChannels"]}


def errors(content: dict[str, Any]) -> list[str]:
    return find_errors(content, CLIENT.meta.service_model.operation_model("CreateAlgorithm").input_shape)


def test_request_is_accepted_by_the_service_model() -> None:
    assert errors(REQUEST) == []


def test_service_model_rejects_a_request_beyond_its_limits() -> None:
    content = json.loads(json.dumps(REQUEST))
    training = content["TrainingSpecification"]
    training["TrainingChannels"].append(training["TrainingChannels"][0])
    training["SupportedTrainingInstanceTypes"].append("ml.g5g.xlarge")
    training["SupportedHyperParameters"][0]["Description"] = "two\nlines"
    found = "\n".join(errors(content))
    assert ".TrainingChannels is" in found and "outside 1 to 8" in found
    assert "'ml.g5g.xlarge': not one of" in found
    assert ".Description is 'two\\nlines': does not match" in found


def test_every_hyperparameter_of_the_schema_is_specified() -> None:
    assert list(SPECIFIED) == list(SCHEMA["properties"])
    assert [name for name, each in SPECIFIED.items() if each["IsRequired"]] == SCHEMA["required"]
    tunable = [name for name, entry in SCHEMA["properties"].items() if entry.get("x-tunable")]
    assert [name for name, each in SPECIFIED.items() if each["IsTunable"]] == tunable
    assert all(each["Description"] == SCHEMA["properties"][name]["description"] for name, each in SPECIFIED.items())


def test_hyperparameter_with_a_default_is_not_required() -> None:
    """The API reference excludes both together. The service model does not contain this rule."""
    assert [name for name, each in SPECIFIED.items() if each["IsRequired"] and "DefaultValue" in each] == []


def is_valid(name: str, value: str) -> bool:
    entry = SCHEMA["properties"][name]
    return bool(jsonschema.Draft202012Validator(entry).is_valid(convert(value, entry)))


@pytest.mark.parametrize("name", SCHEMA["properties"])
def test_default_and_range_equal_the_schema(name: str) -> None:
    entry, specified = SCHEMA["properties"][name], SPECIFIED[name]
    assert ("default" in entry) == ("DefaultValue" in specified)
    if "default" in entry:
        assert convert(specified["DefaultValue"], entry) == entry["default"]
    (kind, range_), *others = specified.get("Range", {"none": {}}).items()
    assert others == []
    if specified["Type"] == "FreeText":
        assert kind == "none" and "enum" not in entry and entry.get("type") not in ("boolean", "integer", "number")
        return
    assert kind == f"{specified['Type']}ParameterRangeSpecification"
    if specified["Type"] == "Categorical":
        assert all(is_valid(name, value) for value in range_["Values"])
        assert specified.get("DefaultValue", range_["Values"][0]) in range_["Values"]
        allowed = [True, False] if entry.get("type") == "boolean" else entry["enum"]
        assert {repr(convert(value, entry)) for value in range_["Values"]} == set(map(repr, allowed))
        return
    low, high = float(range_["MinValue"]), float(range_["MaxValue"])
    is_integer = specified["Type"] == "Integer"
    step = 1 if is_integer else 1e-9
    # the schema accepts no value beyond the range, and every value within it, except the excluded ends of numbers
    assert not is_valid(name, repr(low - step))
    assert is_valid(name, repr(low if is_integer or low != entry.get("exclusiveMinimum") else low + step))
    assert is_valid(name, repr(high if is_integer or high != entry.get("exclusiveMaximum") else high - step))
    has_maximum = "maximum" in entry or "exclusiveMaximum" in entry
    assert not is_valid(name, repr(high + step)) if has_maximum else high == 2**31 - 1


def test_container_accepts_all_defaults_of_the_algorithm() -> None:
    """SDK 2 sends every default with each job."""
    values = {name: each["DefaultValue"] for name, each in SPECIFIED.items() if "DefaultValue" in each}
    assert load({**values, "num_classes": "21"}) == load({"num_classes": "21"})


def test_metric_definitions_match_the_published_log_lines() -> None:
    definitions = {each["Name"]: each["Regex"] for each in TRAINING["MetricDefinitions"]}
    assert set(definitions) == set(PUBLISHED)
    for name, (line, value) in PUBLISHED.items():
        found = re.findall(definitions[name], f"[12/16/2020 18:55:13 INFO 140663167997760] {line}")
        assert [float(text) for text in found] == [value]
        assert [other for other, (text, _) in PUBLISHED.items() if re.search(definitions[name], text)] == [name]


def test_objectives_are_the_metrics_that_the_built_in_algorithm_tunes() -> None:
    assert TRAINING["SupportedTuningJobObjectiveMetrics"] == [
        {"Type": "Maximize", "MetricName": "validation:mIOU"},
        {"Type": "Maximize", "MetricName": "validation:pixel_accuracy"},
    ]


@pytest.mark.parametrize("name", CHANNELS)
def test_container_accepts_every_content_type_of_a_channel(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for content_type in CHANNELS[name]["SupportedContentTypes"]:
        channels = {each: Channel(each, tmp_path) for each in CHANNELS}
        channels[name] = Channel(name, tmp_path, content_type=content_type)
        check_channels(Environment(tmp_path, {}, channels, "algo-1", ("algo-1",)))
    assert caplog.messages == []  # the container uses every channel


def test_instance_types_run_mxnet() -> None:
    kinds = {
        "training": TRAINING["SupportedTrainingInstanceTypes"],
        "real-time": REQUEST["InferenceSpecification"]["SupportedRealtimeInferenceInstanceTypes"],
        "transform": REQUEST["InferenceSpecification"]["SupportedTransformInstanceTypes"],
    }
    for types in kinds.values():
        assert {"ml.g4dn.xlarge", "ml.g5.xlarge", "ml.g6.xlarge", "ml.p3.2xlarge", "ml.c5.xlarge"} <= set(types)
        families = {each.split(".")[1] for each in types}
        # compute capability 3.7, 9.0 and later; Neuron; Gaudi; Graviton (a "g" behind the generation)
        assert not {family for family in families if re.match(r"p2|p[56]|g7|trn|inf|dl|.*\dg", family)}


def test_cpu_image_supports_only_cpu_instances() -> None:
    content = request(IMAGE.replace(":gpu", ":cpu"))
    types = content["TrainingSpecification"]["SupportedTrainingInstanceTypes"]
    assert "ml.c5.xlarge" in types and not [each for each in types if each.startswith(("ml.p", "ml.g"))]
    assert errors(content) == []


def test_script_prints_the_request_without_an_account() -> None:
    done = subprocess.run(
        [PROGRAM / "local_test/register_algorithm.sh", "us-west-2", IMAGE, "--dry-run"],
        capture_output=True,
        text=True,
        timeout=120,
        env={"PATH": "/usr/bin:/bin", "AWS_EC2_METADATA_DISABLED": "true"},
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == REQUEST


def test_cpu_tag_is_found_before_a_digest() -> None:
    content = request(IMAGE.replace(":gpu", ":cpu") + "@sha256:" + "0" * 64)
    types = content["TrainingSpecification"]["SupportedTrainingInstanceTypes"]
    assert not [each for each in types if each.startswith(("ml.p", "ml.g"))]
    assert errors(content) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["us-west-2", "an image"], "'an image' is not an image URI. Use 1 to 255 characters without spaces."),
        (["us-west-2", ""], "'' is not an image URI."),
        (["us-west-2", IMAGE, "--name", "a_b"], "'a_b' is not a name. Use up to 63 letters, digits, and hyphens."),
        (["no region!", IMAGE], "The request failed: Provided region_name 'no region!'"),
        (["", IMAGE], "The request failed: Invalid endpoint"),
    ],
)
def test_script_reports_wrong_arguments(arguments: list[str], message: str) -> None:
    script = PROGRAM / "local_test/register_algorithm.sh"
    environment = {"PATH": "/usr/bin:/bin", "AWS_EC2_METADATA_DISABLED": "true"}
    done = subprocess.run(
        [script, *arguments, "--dry-run"], capture_output=True, text=True, timeout=120, env=environment
    )
    assert done.returncode != 0 and message in done.stderr and "Traceback" not in done.stderr


def test_script_reports_missing_arguments() -> None:
    script = PROGRAM / "local_test/register_algorithm.sh"
    done = subprocess.run([script, "us-west-2"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "the following arguments are required: image" in done.stderr


def test_only_the_pretrained_channel_is_missing() -> None:
    assert set(CHANNELS) == {
        *("train", "train_annotation", "validation", "validation_annotation", "test", "test_annotation"),
        *("label_map", "model"),
    }
    assert [name for name, each in CHANNELS.items() if each["IsRequired"]] == ["train", "validation"]
    assert all("File" in each["SupportedInputModes"] for each in CHANNELS.values())
    pipe = [name for name, each in CHANNELS.items() if "Pipe" in each["SupportedInputModes"]]
    assert sorted(pipe) == ["test", "train", "validation"]


def test_script_without_boto3_reports_the_fix(tmp_path: Path) -> None:
    (tmp_path / "local_test").mkdir()
    script = shutil.copy(PROGRAM / "local_test/register_algorithm.sh", tmp_path / "local_test")
    python = tmp_path / "python3"
    python.write_text("#!/bin/sh\nexit 1\n")
    python.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    done = subprocess.run([script, "us-west-2", IMAGE], capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 1
    assert done.stderr.endswith("python3 cannot import boto3. Run make setup, or install boto3 for python3.\n")
