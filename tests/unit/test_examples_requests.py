"""Requests of the examples that the tests with containers do not run: examples/boto3_*.py and lambda_function.py."""

from __future__ import annotations

import base64
import importlib.util
import io
import json
import os
import re
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import botocore.stub
import pytest

from tests.aws_stub import Account, body, patch_clients, run_example, sagemaker_server
from tests.conftest import PROGRAM
from tests.pages import blocks

IMAGE = "111111111111.dkr.ecr.us-west-2.amazonaws.com/sagemaker-semantic-segmentation:gpu"
ROLE = "arn:aws:iam::111111111111:role/none"
MODEL = "s3://bucket/job/output/model.tar.gz"
ALGORITHM = "semantic-segmentation"
ALGORITHM_ARN = f"arn:aws:sagemaker:us-west-2:111111111111:algorithm/{ALGORITHM}"
FUNCTION = "arn:aws:lambda:us-west-2:111111111111:function:semantic-segmentation"


def statuses(*values: str, name: str) -> Any:
    found = iter(values)
    return lambda request: {name: next(found), "FailureReason": "no capacity", "AlgorithmStatusDetails": {}}


# Algorithm resource


def test_algorithm_is_created_and_awaited(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    account = Account(
        {
            "CreateAlgorithm": {"AlgorithmArn": ALGORITHM_ARN},
            "DescribeAlgorithm": statuses("Pending", "InProgress", "Completed", name="AlgorithmStatus"),
        }
    )
    patch_clients(monkeypatch, account)
    run_example(monkeypatch, "boto3_algorithm.py", "us-west-2", IMAGE)
    assert account.only("CreateAlgorithm")["TrainingSpecification"]["TrainingImage"] == IMAGE
    assert len(account.all("DescribeAlgorithm")) == 3
    assert capsys.readouterr().out == f"{ALGORITHM_ARN}\n"


def test_failed_algorithm_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    describe = statuses("Failed", name="AlgorithmStatus")
    account = Account({"CreateAlgorithm": {"AlgorithmArn": ALGORITHM_ARN}, "DescribeAlgorithm": describe})
    patch_clients(monkeypatch, account)
    with pytest.raises(SystemExit, match="The Algorithm semantic-segmentation has the status Failed"):
        run_example(monkeypatch, "boto3_algorithm.py", "us-west-2", IMAGE)


def test_existing_algorithm_is_reported_with_the_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    def reject(request: dict[str, Any]) -> dict[str, Any]:
        response = {"Error": {"Code": "ValidationException", "Message": "Algorithm already exists"}}
        raise botocore.exceptions.ClientError(response, "CreateAlgorithm")

    patch_clients(monkeypatch, Account({"CreateAlgorithm": reject}))
    fix = "already exists. Choose another --name, or delete it: aws sagemaker delete-algorithm --region us-west-2 --alg"
    with pytest.raises(SystemExit, match=fix):
        run_example(monkeypatch, "boto3_algorithm.py", "us-west-2", IMAGE)


def test_training_job_uses_the_algorithm_without_metric_definitions(monkeypatch: pytest.MonkeyPatch) -> None:
    finished = {"TrainingJobStatus": "Completed", "ModelArtifacts": {"S3ModelArtifacts": MODEL}}
    account = Account({"DescribeTrainingJob": finished})
    patch_clients(monkeypatch, account)
    run_example(monkeypatch, "boto3_train.py", ALGORITHM, ROLE, "s3://bucket/voc")
    specification = account.only("CreateTrainingJob")["AlgorithmSpecification"]
    assert specification == {"TrainingInputMode": "File", "AlgorithmName": ALGORITHM}


def test_newcomer_registers_and_tunes_with_the_commands_that_the_readme_leads_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commands of docs/migrate.md, which the README links, against a stub of the SageMaker API."""
    assert "](docs/migrate.md)" in (PROGRAM / "README.md").read_text()
    (block,) = [each for each in blocks("sh") if each.page.name == "migrate.md" and "register_algorithm" in each.text]
    placeholders = {"IMAGE_URI": IMAGE, "ROLE": ROLE, "BUCKET": "bucket", "PREFIX": "voc"}
    commands = [line.partition(" #")[0] for line in block.text.splitlines()]
    commands = [re.sub("|".join(placeholders), lambda found: placeholders[found[0]], line) for line in commands]
    account = Account(
        {"CreateAlgorithm": {"AlgorithmArn": ALGORITHM_ARN}, "DescribeAlgorithm": {"AlgorithmStatus": "Completed"}}
    )
    with sagemaker_server(account) as url:
        environment = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(tmp_path),
            "AWS_ENDPOINT_URL_SAGEMAKER": url,
            **{"AWS_DEFAULT_REGION": "us-west-2", "AWS_ACCESS_KEY_ID": "none", "AWS_SECRET_ACCESS_KEY": "none"},
        }
        for command in commands:
            words = shlex.split(command)
            done = subprocess.run(words, cwd=PROGRAM, env=environment, capture_output=True, text=True, timeout=120)
            assert done.returncode == 0, done.stderr
    registered, tuning = account.only("CreateAlgorithm"), account.only("CreateHyperParameterTuningJob")
    training = registered["TrainingSpecification"]
    assert training["TrainingImage"] == IMAGE
    job, config = tuning["TrainingJobDefinition"], tuning["HyperParameterTuningJobConfig"]
    assert job["AlgorithmSpecification"] == {"TrainingInputMode": "File", "AlgorithmName": registered["AlgorithmName"]}
    # what the service checks with the Algorithm resource
    assert config["HyperParameterTuningJobObjective"] in training["SupportedTuningJobObjectiveMetrics"]
    specified = {each["Name"]: each for each in training["SupportedHyperParameters"]}
    ranges = [each for kind in config["ParameterRanges"].values() for each in kind]
    assert ranges and all(specified[each["Name"]]["IsTunable"] for each in ranges)
    assert set(job["StaticHyperParameters"]) <= set(specified)
    assert {name for name, each in specified.items() if each["IsRequired"]} <= set(job["StaticHyperParameters"])
    assert job["ResourceConfig"]["InstanceType"] in training["SupportedTrainingInstanceTypes"]
    channels = {each["Name"]: each for each in training["TrainingChannels"]}
    for channel in job["InputDataConfig"]:
        assert channel["ContentType"] in channels[channel["ChannelName"]]["SupportedContentTypes"]
    assert {name for name, each in channels.items() if each["IsRequired"]} <= {
        each["ChannelName"] for each in job["InputDataConfig"]
    }


# Asynchronous inference with SNS


def test_async_endpoint_notifies_both_topics(monkeypatch: pytest.MonkeyPatch) -> None:
    account = Account(
        {
            "CreateTopic": lambda request: {"TopicArn": f"arn:aws:sns:us-west-2:111111111111:{request['Name']}"},
            "DescribeEndpoint": {"EndpointStatus": "InService"},
            "PutScalingPolicy": {"PolicyARN": "arn:aws:autoscaling:us-west-2:111111111111:scalingPolicy:first"},
            "InvokeEndpointAsync": {"OutputLocation": "s3://bucket/masks/1.out"},
        }
    )
    patch_clients(monkeypatch, account)
    arguments = (IMAGE, ROLE, MODEL, "s3://bucket/photo.png", "s3://bucket/masks")
    run_example(monkeypatch, "boto3_async.py", *arguments, "team@example.com")
    topics = [f"arn:aws:sns:us-west-2:111111111111:{each['Name']}" for each in account.all("CreateTopic")]
    assert len(set(topics)) == 2
    output = account.only("CreateEndpointConfig")["AsyncInferenceConfig"]["OutputConfig"]
    assert output["NotificationConfig"] == {"SuccessTopic": topics[0], "ErrorTopic": topics[1]}
    assert account.all("Subscribe") == [
        {"TopicArn": topic, "Protocol": "email", "Endpoint": "team@example.com"} for topic in topics
    ]


# Inference components


def components_account(*values: str) -> Account:
    return Account(
        {
            "DescribeEndpoint": {"EndpointStatus": "InService"},
            "DescribeInferenceComponent": statuses(*values, name="InferenceComponentStatus"),
            "PutScalingPolicy": lambda request: {"PolicyARN": f"arn:policy/{request['PolicyName']}"},
            "InvokeEndpoint": lambda request: body(b"a mask"),
        }
    )


def test_inference_component_scales_to_zero_and_back(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    account = components_account("Creating", "InService")
    patch_clients(monkeypatch, account)
    photo, mask = tmp_path / "street.jpg", tmp_path / "mask.png"
    photo.write_bytes(b"a photograph")
    run_example(monkeypatch, "boto3_components.py", IMAGE, ROLE, MODEL, photo, mask)
    assert mask.read_bytes() == b"a mask"
    config, component = account.only("CreateEndpointConfig"), account.only("CreateInferenceComponent")
    (variant,) = config["ProductionVariants"]
    assert config["ExecutionRoleArn"] == ROLE and "ModelName" not in variant
    assert variant["ManagedInstanceScaling"]["MinInstanceCount"] == 0
    assert component["Specification"]["ModelName"] == account.only("CreateModel")["ModelName"]
    target = account.only("RegisterScalableTarget")
    assert target["MinCapacity"] == 0
    assert target["ResourceId"] == f"inference-component/{component['InferenceComponentName']}"
    tracking, step = account.all("PutScalingPolicy")
    for name in ("ResourceId", "ScalableDimension"):
        assert tracking[name] == step[name] == target[name]
    assert (tracking["PolicyType"], step["PolicyType"]) == ("TargetTrackingScaling", "StepScaling")
    alarm = account.only("PutMetricAlarm")
    assert alarm["MetricName"] == "NoCapacityInvocationFailures"
    assert alarm["Dimensions"] == [{"Name": "InferenceComponentName", "Value": component["InferenceComponentName"]}]
    assert alarm["AlarmActions"] == [f"arn:policy/{step['PolicyName']}"]
    invocation = account.only("InvokeEndpoint")
    assert invocation["InferenceComponentName"] == component["InferenceComponentName"]
    assert invocation["Body"] == b"a photograph"


def test_failed_inference_component_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    patch_clients(monkeypatch, components_account("Failed"))
    with pytest.raises(SystemExit, match="The inference component failed: no capacity"):
        run_example(monkeypatch, "boto3_components.py", IMAGE, ROLE, MODEL, tmp_path, tmp_path)


# Lambda and API Gateway


def test_lambda_function_and_http_api_are_created(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    account = Account(
        {
            "CreateFunction": {"FunctionArn": FUNCTION},
            "GetFunction": {"Configuration": {"State": "Active"}},
            "CreateApi": {"ApiId": "a1b2c3", "ApiEndpoint": "https://a1b2c3.execute-api.us-west-2.amazonaws.com"},
        }
    )
    patch_clients(monkeypatch, account)
    run_example(monkeypatch, "boto3_lambda.py", ROLE, "streets", "streets-async", "bucket")
    function, api = account.only("CreateFunction"), account.only("CreateApi")
    with zipfile.ZipFile(io.BytesIO(function["Code"]["ZipFile"])) as archive:
        assert archive.read("lambda_function.py") == (PROGRAM / "examples/lambda_function.py").read_bytes()
    module, _, name = function["Handler"].partition(".")
    assert module == "lambda_function" and callable(getattr(lambda_function(monkeypatch), name))
    assert api["Target"] == FUNCTION
    permission = account.only("AddPermission")
    assert permission["SourceArn"] == "arn:aws:execute-api:us-west-2:111111111111:a1b2c3/*"
    assert permission["FunctionName"] == function["FunctionName"]
    assert capsys.readouterr().out == "https://a1b2c3.execute-api.us-west-2.amazonaws.com\n"


def lambda_function(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    names = {"ENDPOINT": "streets", "ASYNC_ENDPOINT": "streets-async", "BUCKET": "bucket"}
    names |= {"AWS_DEFAULT_REGION": "us-west-2", "AWS_ACCESS_KEY_ID": "none", "AWS_SECRET_ACCESS_KEY": "none"}
    for name, value in names.items():
        monkeypatch.setenv(name, value)
    spec = importlib.util.spec_from_file_location("lambda_function", PROGRAM / "examples/lambda_function.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def event(
    path: str, content: bytes | None = None, query: dict[str, str] | None = None, **headers: str
) -> dict[str, Any]:
    """Return an event of an HTTP API in payload format 2.0: absent parts are omitted, header names are lowercase."""
    found: dict[str, Any] = {"version": "2.0", "rawPath": path, "requestContext": {"http": {"method": "POST"}}}
    found["headers"] = {name.replace("_", "-"): value for name, value in headers.items()}
    found["isBase64Encoded"] = content is not None
    if content is not None:
        found["body"] = base64.b64encode(content).decode()
    if query:
        found["queryStringParameters"] = query
    return found


def content(response: dict[str, Any]) -> bytes:
    assert response["isBase64Encoded"] is True
    return base64.b64decode(response["body"], validate=True)


def test_lambda_returns_the_mask_in_base64(monkeypatch: pytest.MonkeyPatch) -> None:
    function = lambda_function(monkeypatch)
    with botocore.stub.Stubber(function.runtime) as stub:
        expected = {"EndpointName": "streets", "ContentType": "image/jpeg", "Accept": "image/png", "Body": b"\xff\xd8"}
        stub.add_response("invoke_endpoint", body(b"\x89PNG"), expected)
        response = function.handler(event("/masks", b"\xff\xd8", content_type="image/jpeg"), None)
    assert (response["statusCode"], response["headers"]["content-type"]) == (200, "image/png")
    assert content(response) == b"\x89PNG"


def test_lambda_returns_status_and_message_of_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    function = lambda_function(monkeypatch)
    message = '{"error": "The image has 50 million pixels."}'
    with botocore.stub.Stubber(function.runtime) as stub:
        fields = {"OriginalStatusCode": 413, "OriginalMessage": message}
        stub.add_client_error("invoke_endpoint", "ModelError", http_status_code=424, modeled_fields=fields)
        response = function.handler(event("/masks", b"image"), None)
    assert (response["statusCode"], content(response).decode()) == (413, message)


def test_lambda_response_stays_below_6_mb(monkeypatch: pytest.MonkeyPatch) -> None:
    function = lambda_function(monkeypatch)
    for size, status in ((4_400_000, 200), (4_400_001, 413)):
        with botocore.stub.Stubber(function.runtime) as stub:
            stub.add_response("invoke_endpoint", body(bytes(size), "application/x-npy"))
            response = function.handler(event("/masks", b"image", accept="application/x-npy"), None)
        assert response["statusCode"] == status
        assert len(json.dumps(response)) < 6_000_000


def test_lambda_sends_large_images_through_s3_to_the_async_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    function = lambda_function(monkeypatch)
    upload = json.loads(content(function.handler(event("/uploads"), None)))
    assert upload["upload"].startswith(f"https://bucket.s3.us-west-2.amazonaws.com/{upload['key']}?")
    assert "X-Amz-Signature=" in upload["upload"]
    with botocore.stub.Stubber(function.runtime) as stub:
        expected = {
            "EndpointName": "streets-async",
            "InputLocation": f"s3://bucket/{upload['key']}",
            "ContentType": "application/octet-stream",
            "Accept": "image/png",
        }
        found = {"OutputLocation": "s3://bucket/masks/1.out", "FailureLocation": "s3://bucket/masks/failures/1.out"}
        stub.add_response("invoke_endpoint_async", found, expected)
        response = function.handler(event("/masks", query={"key": upload["key"]}), None)
    urls = json.loads(content(response))
    assert response["statusCode"] == 202
    assert urls["mask"].startswith("https://bucket.s3.us-west-2.amazonaws.com/masks/1.out?")
    assert urls["failure"].startswith("https://bucket.s3.us-west-2.amazonaws.com/masks/failures/1.out?")


@pytest.mark.parametrize(
    ("path", "query", "status", "message"),
    [
        ("/", None, 404, "POST / does not exist. Use POST /masks or POST /uploads."),
        ("/masks", {"key": "masks/1.out"}, 400, "key is masks/1.out. Use the key that POST /uploads returned."),
    ],
)
def test_lambda_rejects(
    monkeypatch: pytest.MonkeyPatch, path: str, query: dict[str, str] | None, status: int, message: str
) -> None:
    response = lambda_function(monkeypatch).handler(event(path, query=query), None)
    assert (response["statusCode"], json.loads(content(response))) == (status, {"error": message})
