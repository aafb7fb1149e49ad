"""examples/boto3_*.py: the service model accepts every request (`account` checks it), and the container responds."""

from __future__ import annotations

import io
import json
import shutil
import struct
import zlib
from pathlib import Path
from typing import Any

import boto3
import pytest
import requests
from PIL import Image as Pillow

from container.metrics import METRIC_DEFINITIONS
from tests.conftest import PROGRAM
from tests.container.conftest import Image
from tests.sagemaker.account import MotoAccount, operations
from tests.sagemaker.conftest import IMAGE, Run, Trained
from tests.sagemaker.test_sdk3_deploy import MODEL, STATISTICS
from tests.sagemaker.test_sdk3_train import ADDRESS, ROLE, channel
from tests.service_model import find_errors

HYPERPARAMETERS = json.loads((PROGRAM / "hyperparameters.schema.json").read_text())["properties"]


def channels() -> list[dict[str, Any]]:
    found = [
        channel("train", "image/jpeg"),
        channel("train_annotation", "image/png"),
        channel("validation", "image/jpeg"),
        channel("validation_annotation", "image/png"),
    ]
    return [{name: value for name, value in each.items() if name != "InputMode"} for each in found]


def assert_model(account: MotoAccount, isolated: bool = True, **container: Any) -> None:
    request = account.only("CreateModel")
    assert request["PrimaryContainer"] == {"Image": ADDRESS, "ModelDataUrl": MODEL, **container}
    assert (request["ExecutionRoleArn"], request.get("EnableNetworkIsolation", False)) == (ROLE, isolated)


def test_train(run: Run, account: MotoAccount) -> None:
    log = run("boto3_train.py", ADDRESS, ROLE, "s3://bucket/voc", environment=account.environment())
    request = account.only("CreateTrainingJob")
    name = request["TrainingJobName"]
    assert f"s3://bucket/voc/output/{name}/output/model.tar.gz" in log
    assert request["CheckpointConfig"] == {
        "S3Uri": f"s3://bucket/voc/checkpoints/{name}",
        "LocalPath": "/opt/ml/checkpoints",
    }
    assert request["TensorBoardOutputConfig"]["LocalPath"] == "/opt/ml/output/tensorboard"
    assert (request["EnableManagedSpotTraining"], request["EnableNetworkIsolation"]) == (True, True)
    assert request["StoppingCondition"] == {"MaxRuntimeInSeconds": 86400, "MaxWaitTimeInSeconds": 172800}
    assert request["InputDataConfig"] == channels()
    assert set(request["HyperParameters"]) <= set(HYPERPARAMETERS)
    for definition in request["AlgorithmSpecification"]["MetricDefinitions"]:
        assert METRIC_DEFINITIONS[definition["Name"]] == definition["Regex"]


def test_tune(run: Run, account: MotoAccount) -> None:
    run("boto3_tune.py", ADDRESS, ROLE, "s3://bucket/voc", environment=account.environment())
    request = account.only("CreateHyperParameterTuningJob")
    config, job = request["HyperParameterTuningJobConfig"], request["TrainingJobDefinition"]
    (definition,) = job["AlgorithmSpecification"]["MetricDefinitions"]
    assert config["HyperParameterTuningJobObjective"] == {"Type": "Maximize", "MetricName": definition["Name"]}
    assert METRIC_DEFINITIONS[definition["Name"]] == definition["Regex"]
    ranges = [each for kind in config["ParameterRanges"].values() for each in kind]
    assert all(HYPERPARAMETERS[each["Name"]].get("x-tunable") for each in ranges)
    assert set(job["StaticHyperParameters"]) <= set(HYPERPARAMETERS)
    assert not set(job["StaticHyperParameters"]) & {each["Name"] for each in ranges}
    assert job["InputDataConfig"] == channels()
    assert "CheckpointConfig" not in job  # all jobs would share one prefix


def test_deploy(run: Run, account: MotoAccount, server: str, photo: Path) -> None:
    account.server = server
    log = run("boto3_deploy.py", ADDRESS, ROLE, MODEL, photo, environment=account.environment())
    assert "mask (40, 48), classes [" in log
    assert_model(account, Environment={"SERVE_PRECISION": "auto"})
    for kind in ("Model", "EndpointConfig", "Endpoint"):
        name = "EndpointConfigName" if kind == "EndpointConfig" else f"{kind}Name"
        assert account.only(f"Create{kind}")[name] == account.only(f"Delete{kind}")[name]


def test_deploy_model_artifacts_without_an_onnx_model(
    run: Run, account: MotoAccount, trained: Trained, photo: Path, tmp_path: Path
) -> None:
    for name in ("model_best.params", "hyperparams.json"):
        shutil.copy(trained.model / name, tmp_path)
    with Image("docker", IMAGE).serving(tmp_path, "--read-only") as container:
        container.wait_until_ready()
        account.server = container.url
        log = run("boto3_deploy.py", ADDRESS, ROLE, MODEL, photo, environment=account.environment())
    assert "mask (40, 48), classes [" in log


def test_serverless(run: Run, account: MotoAccount, server: str, photo: Path) -> None:
    account.server = server
    log = run("boto3_serverless.py", ADDRESS, ROLE, MODEL, photo, 3072, environment=account.environment())
    assert "mask (40, 48), classes [" in log
    assert_model(account, isolated=False)  # serverless endpoints do not support network isolation
    (variant,) = account.only("CreateEndpointConfig")["ProductionVariants"]
    assert variant["ServerlessConfig"] == {"MemorySizeInMB": 3072, "MaxConcurrency": 5}
    assert "InstanceType" not in variant


def test_multi_model(run: Run, account: MotoAccount, server_of_many: str, photo: Path) -> None:
    account.server = server_of_many
    account.models = {"cats.tar.gz": "/models/one", "dogs.tar.gz": "/models/two"}
    names = ("cats.tar.gz", "dogs.tar.gz")
    prefix = "s3://bucket/models/"
    log = run("boto3_multi_model.py", ADDRESS, ROLE, prefix, photo, *names, environment=account.environment())
    assert all(f"{name}: mask (40, 48), classes [" in log for name in names)
    assert account.models == {}  # both were loaded
    assert account.only("CreateModel")["PrimaryContainer"] == {
        "Image": ADDRESS,
        "Mode": "MultiModel",
        "ModelDataUrl": prefix,
    }


def padded(size: int) -> bytes:
    """Return a PNG of 48 by 40 pixels and more than `size` bytes, most of them in chunks that readers skip."""
    with io.BytesIO() as file:
        Pillow.new("RGB", (48, 40)).save(file, "PNG")
        png = file.getvalue()
    chunk = b"fiLl" + bytes(2**20)
    chunk = struct.pack(">I", 2**20) + chunk + struct.pack(">I", zlib.crc32(chunk))
    end = len(png) - 12  # IEND
    return png[:end] + chunk * (size // 2**20 + 1) + png[end:]


def test_async(run: Run, account: MotoAccount, trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    photo, masks = "s3://bucket/photo.png", "s3://bucket/masks"
    log = run("boto3_async.py", ADDRESS, ROLE, MODEL, photo, masks, environment=account.environment())
    assert "s3://" in log
    assert_model(
        account,
        isolated=False,
        Environment={
            "SAGEMAKER_MODEL_SERVER_TIMEOUT": "3600",
            "MAX_CONTENT_LENGTH": "1073741824",
            "MAX_PIXELS": "400000000",
        },
    )
    variables = account.only("CreateModel")["PrimaryContainer"]["Environment"]
    options = [word for name, value in variables.items() for word in ("--env", f"{name}={value}")]
    with Image("docker", IMAGE).serving(trained.model, *options) as container:
        container.wait_until_ready()
        response = requests.post(f"{container.url}/invocations", padded(150 * 2**20), timeout=300)
        assert response.status_code == 200, response.text
    config = account.only("CreateEndpointConfig")
    topics = "arn:aws:sns:us-west-2:123456789012:semantic-segmentation-async"  # the account of moto
    assert config["AsyncInferenceConfig"]["OutputConfig"] == {
        "S3OutputPath": masks,
        "S3FailurePath": f"{masks}/failures",
        "NotificationConfig": {"SuccessTopic": f"{topics}-completed", "ErrorTopic": f"{topics}-failed"},
    }
    endpoint = account.only("CreateEndpoint")["EndpointName"]
    (variant,) = config["ProductionVariants"]
    target = account.only("RegisterScalableTarget")
    assert target["ResourceId"] == f"endpoint/{endpoint}/variant/{variant['VariantName']}"
    assert (target["MinCapacity"], target["MaxCapacity"]) == (0, 2)
    backlog, first = account.all("PutScalingPolicy")
    metric = backlog["TargetTrackingScalingPolicyConfiguration"]["CustomizedMetricSpecification"]
    assert metric["MetricName"] == "ApproximateBacklogSizePerInstance"
    assert metric["Dimensions"] == [{"Name": "EndpointName", "Value": endpoint}]
    assert first["PolicyType"] == "StepScaling"
    monkeypatch.setenv("AWS_ENDPOINT_URL", account.url)
    (alarm,) = boto3.client("cloudwatch").describe_alarms()["MetricAlarms"]
    assert (alarm["MetricName"], alarm["Dimensions"]) == ("HasBacklogWithoutCapacity", metric["Dimensions"])
    found = boto3.client("application-autoscaling").describe_scaling_policies(ServiceNamespace="sagemaker")
    policies = {policy["PolicyName"]: policy["PolicyARN"] for policy in found["ScalingPolicies"]}
    assert alarm["AlarmActions"] == [policies[first["PolicyName"]]]


def test_transform(run: Run, account: MotoAccount) -> None:
    addresses = ("s3://bucket/images/", "s3://bucket/masks/")
    run("boto3_transform.py", ADDRESS, ROLE, MODEL, *addresses, environment=account.environment())
    assert_model(account)
    request = account.only("CreateTransformJob")
    assert request["ModelName"] == account.only("CreateModel")["ModelName"]
    assert request["MaxConcurrentTransforms"] * request["MaxPayloadInMB"] <= 100
    assert request["BatchStrategy"] == "SingleRecord"
    assert request["TransformInput"]["DataSource"]["S3DataSource"]["S3Uri"] == addresses[0]
    assert request["TransformOutput"]["S3OutputPath"] == addresses[1]
    assert request["TransformOutput"]["Accept"] == "image/png"


def test_register(run: Run, account: MotoAccount) -> None:
    log = run("boto3_register.py", ADDRESS, ROLE, MODEL, STATISTICS, environment=account.environment())
    request = account.only("CreateModelPackage")
    assert request["ModelMetrics"] == {
        "ModelQuality": {"Statistics": {"ContentType": "application/json", "S3Uri": STATISTICS}}
    }
    assert request["InferenceSpecification"]["Containers"] == [{"Image": ADDRESS, "ModelDataUrl": MODEL}]
    approval = account.only("UpdateModelPackage")
    assert approval["ModelApprovalStatus"] == "Approved"
    assert account.only("CreateModel")["Containers"] == [{"ModelPackageName": approval["ModelPackageArn"]}]
    assert approval["ModelPackageArn"] in log


def test_rejected_request_is_reported() -> None:
    shape = operations()["SageMaker.CreateTransformJob"].input_shape
    request = json.loads('{"TransformJobName": "a_b", "ModelName": "m", "BatchStrategy": "Single", "More": 1}')
    errors = "\n".join(find_errors(request, shape))
    assert 'Missing required parameter in input: "TransformInput"' in errors
    assert ".TransformJobName is 'a_b': does not match" in errors
    assert ".BatchStrategy is 'Single': not one of ['MultiRecord', 'SingleRecord']" in errors
    assert ".More is unknown" in errors
