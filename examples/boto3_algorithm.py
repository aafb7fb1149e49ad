"""Register the container image as a SageMaker AI Algorithm resource with boto3.

    pip install boto3
    python examples/boto3_algorithm.py REGION IMAGE [--name NAME] [--dry-run]

A job that uses the Algorithm by name gets its metric definitions and tuning objectives, as a job of the built-in
algorithm does. `--dry-run` prints the request as JSON and needs no account. If the tag of IMAGE is `cpu`, the Algorithm
supports only CPU instances.
"""

import argparse
import json
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError

sys.path.append(str(Path(__file__).parents[1]))  # the repository
from container.metrics import metric_definitions
from container.schema import read_schema

GPU_FAMILIES = ("p3", "p3dn", "p4d", "p4de", "g4dn", "g5", "g6", "g6e")  # compute capability 7.0 to 8.9
CPU_FAMILIES = (
    *("c4", "c5", "c5d", "c5n", "c6i", "c6in", "c7i"),
    *("m4", "m5", "m5d", "m6i", "m7i"),
    *("r5", "r5d", "r6i", "r7i"),
)
OBJECTIVES = ("validation:mIOU", "validation:pixel_accuracy")
BOOLEANS = ("True", "False", "true", "false")  # boto3 and SDK 2 send "True", SDK 3 sends "true"
NO_MAXIMUM = 2**31 - 1  # the service requires both ends of a range
IMAGES = ("image/jpeg", "image/png", "application/x-image")
STREAM = "application/x-recordio"
MODELS = ("application/x-sagemaker-model", "application/x-tar", "application/gzip", "application/x-gzip")


def specify_hyperparameter(name: str, entry: dict[str, Any], is_required: bool) -> dict[str, Any]:
    """Convert a property of the schema to a `HyperParameterSpecification`."""
    kind, range_ = _type_and_range(entry)
    specification = {
        "Name": name,
        "Description": entry["description"],
        "Type": kind,
        "IsTunable": entry.get("x-tunable", False),
        "IsRequired": is_required,
    }
    if range_:
        specification["Range"] = {f"{kind}ParameterRangeSpecification": range_}
    if "default" in entry:
        specification["DefaultValue"] = str(entry["default"])
    return specification


def _type_and_range(entry: dict[str, Any]) -> tuple[str, dict[str, Any] | None]:
    """Return the type of a hyperparameter, and its range. Both ends of a numeric range are inclusive."""
    kind = entry.get("type")
    values = [str(value) for value in entry.get("enum", ()) if not isinstance(value, bool)]
    if kind == "boolean" or "enum" in entry:
        is_boolean = kind == "boolean" or True in entry["enum"]
        return "Categorical", {"Values": [*values, *(BOOLEANS if is_boolean else ())]}
    if kind not in ("integer", "number"):
        return "FreeText", None
    step = 1 if kind == "integer" else 0  # the container itself rejects the excluded end of a continuous range
    low = entry.get("minimum", entry.get("exclusiveMinimum", 0) + step)
    high = entry.get("maximum", entry.get("exclusiveMaximum", NO_MAXIMUM + step) - step)
    return "Integer" if step else "Continuous", {"MinValue": str(low), "MaxValue": str(high)}


def specify_channels() -> Iterator[dict[str, Any]]:
    """Describe the channels: at most 8, so `pretrained` is missing (the image includes the ImageNet weights)."""
    annotations = "Annotations: PNG files with the class ID of each pixel. Not used in Pipe mode."
    for name, purpose in (("train", "training"), ("validation", "validation"), ("test", "evaluation after training")):
        required = name != "test"
        yield _channel(name, f"Images for {purpose}.", [*IMAGES, STREAM], is_required=required, streams=True)
        yield _channel(f"{name}_annotation", annotations, ["image/png", "application/x-image"])
    yield _channel("label_map", "Label maps: JSON files that map pixel values to class IDs.", ["application/json"])
    yield _channel("model", "Model artifacts (model.tar.gz) for incremental training.", list(MODELS))


def _channel(
    name: str, description: str, content_types: list[str], is_required: bool = False, streams: bool = False
) -> dict[str, Any]:
    return {
        "Name": name,
        "Description": description,
        "IsRequired": is_required,
        "SupportedContentTypes": content_types,
        "SupportedCompressionTypes": ["None", "Gzip"] if streams else ["None"],
        "SupportedInputModes": ["File", "FastFile", "Pipe"] if streams else ["File", "FastFile"],
    }


def create_request(sagemaker: Any, algorithm: str, image: str) -> dict[str, Any]:
    """Return the CreateAlgorithm request. `sagemaker` is a boto3 client, which lists the instance types."""
    schema = read_schema()
    families = CPU_FAMILIES if image.partition("@")[0].endswith(":cpu") else GPU_FAMILIES + CPU_FAMILIES

    def instance_types(shape: str) -> list[str]:
        found = sagemaker.meta.service_model.shape_for(shape).enum
        return [each for each in found if each.split(".")[1] in families]

    return {
        "AlgorithmName": algorithm,
        "AlgorithmDescription": "Semantic segmentation with FCN, PSPNet, DeepLabV3, or Fast-SCNN.",
        "TrainingSpecification": {
            "TrainingImage": image,
            "SupportedHyperParameters": [
                specify_hyperparameter(key, entry, key in schema["required"])
                for key, entry in schema["properties"].items()
            ],
            "SupportedTrainingInstanceTypes": instance_types("TrainingInstanceType"),
            "SupportsDistributedTraining": True,
            "MetricDefinitions": metric_definitions(),
            "TrainingChannels": list(specify_channels()),
            "SupportedTuningJobObjectiveMetrics": [{"Type": "Maximize", "MetricName": name} for name in OBJECTIVES],
        },
        "InferenceSpecification": {
            "Containers": [{"Image": image}],
            "SupportedContentTypes": [*IMAGES, "application/json"],
            "SupportedResponseMIMETypes": [
                *("image/png", "application/x-protobuf", "application/x-recordio-protobuf"),
                *("application/x-npy", "application/json"),
            ],
            "SupportedRealtimeInferenceInstanceTypes": instance_types("ProductionVariantInstanceType"),
            "SupportedTransformInstanceTypes": instance_types("TransformInstanceType"),
        },
    }


def register(sagemaker: Any, request: dict[str, Any]) -> str:
    """Create the Algorithm, wait until jobs can use it, and return its ARN."""
    name = request["AlgorithmName"]
    try:
        arn = str(sagemaker.create_algorithm(**request)["AlgorithmArn"])
    except ClientError as error:
        if "exist" not in str(error).lower():
            raise
        delete = f"aws sagemaker delete-algorithm --region {sagemaker.meta.region_name} --algorithm-name {name}"
        sys.exit(f"The Algorithm {name} already exists. Choose another --name, or delete it: {delete}")
    while (found := sagemaker.describe_algorithm(AlgorithmName=name))["AlgorithmStatus"] in ("Pending", "InProgress"):
        time.sleep(5)
    if found["AlgorithmStatus"] != "Completed":
        sys.exit(f"The Algorithm {name} has the status {found['AlgorithmStatus']}: {found['AlgorithmStatusDetails']}")
    return arn


def main() -> None:
    """Register the Algorithm, or print the request."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("region")
    parser.add_argument("image", type=_image, help="image URI that local_test/build_and_push.sh prints")
    parser.add_argument(
        "--name", type=_name, default="semantic-segmentation", help="name of the Algorithm (default: %(default)s)"
    )
    parser.add_argument("--dry-run", action="store_true", help="print the request")
    arguments = parser.parse_args()
    try:
        sagemaker = boto3.client("sagemaker", region_name=arguments.region)
        request = create_request(sagemaker, arguments.name, arguments.image)
        print(json.dumps(request, indent=2, ensure_ascii=False) if arguments.dry_run else register(sagemaker, request))
    except (BotoCoreError, ClientError, ValueError) as error:
        sys.exit(f"The request failed: {error}. Check the region, the image, and the credentials.")


def _image(text: str) -> str:
    if not re.fullmatch(r"\S{1,255}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not an image URI. Use 1 to 255 characters without spaces.")
    return text


def _name(text: str) -> str:
    if not re.fullmatch("[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a name. Use up to 63 letters, digits, and hyphens.")
    return text


if __name__ == "__main__":
    main()
