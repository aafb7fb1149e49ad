"""The pages' snippets for SageMaker's SDK, run with the SDK that is installed, against an account that is not there."""

from __future__ import annotations

import importlib.metadata
import io
import re
import time
from pathlib import Path
from typing import Any

import botocore.client
import pytest
from botocore.validate import ParamValidator
from PIL import Image

from tests.conftest import PROGRAM

VERSION = importlib.metadata.version("sagemaker").partition(".")[0]
ROLE = "arn:aws:iam::111111111111:role/none"
TRUST = {"Effect": "Allow", "Principal": {"Service": "sagemaker.amazonaws.com"}, "Action": "sts:AssumeRole"}


def snippets(page: str) -> list[str]:
    """List a page's blocks for this version of the SDK, with an address where it has <…>."""
    found = re.findall(rf"(?ms)^```python sdk{VERSION}\n(.+?)^```", (PROGRAM / page).read_text())
    values = {"<account>": "111111111111", "<region>": "us-west-2", "<name>": "sagemaker-semantic-segmentation"}
    return [re.sub("<[a-z]+>", lambda part: values[part[0]], text) for text in found]


class Reservation:
    """Answers what the SDK asks, after holding it to AWS's own service model."""

    def __init__(self) -> None:
        self.asked: dict[str, dict[str, Any]] = {}

    def answer(self, client: Any, operation: str, request: dict[str, Any]) -> dict[str, Any]:
        shape = client.meta.service_model.operation_model(operation).input_shape
        if shape is not None:
            faults = ParamValidator().validate(request, shape)
            assert not faults.has_errors(), faults.generate_report()
        self.asked[operation] = request
        mask = io.BytesIO()
        Image.new("L", (3, 2), 1).save(mask, "PNG")
        return {
            "GetCallerIdentity": {"Account": "111111111111", "Arn": ROLE},
            "GetRole": {"Role": {"Arn": ROLE, "RoleName": "none", "AssumeRolePolicyDocument": {"Statement": [TRUST]}}},
            "SimulatePrincipalPolicy": {
                "EvaluationResults": [
                    {"EvalActionName": name, "EvalDecision": "allowed"} for name in request.get("ActionNames", ())
                ]
            },
            "DescribeTrainingJob": {
                **{"TrainingJobName": "job", "TrainingJobStatus": "Completed", "SecondaryStatus": "Completed"}
            },
            "DescribeLogStreams": {"logStreams": [{"logStreamName": "job/algo-1"}]},
            "GetLogEvents": {"events": [], "nextForwardToken": "none"},
            "DescribeModel": {"ModelName": "model", "ModelArn": "arn"},
            "DescribeEndpoint": {"EndpointName": "streets", "EndpointArn": "arn", "EndpointStatus": "InService"},
            "InvokeEndpoint": {"Body": io.BytesIO(mask.getvalue()), "ContentType": "image/png"},
        }.get(operation, {f"{operation.removeprefix('Create')}Arn": "arn"})


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Reservation:
    variables = {"AWS_DEFAULT_REGION": "us-west-2", "AWS_ACCESS_KEY_ID": "none", "AWS_SECRET_ACCESS_KEY": "none"}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    found = Reservation()
    monkeypatch.setattr(botocore.client.BaseClient, "_make_api_call", lambda *request: found.answer(*request))
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # the SDK's, between two questions whose answer is there
    monkeypatch.chdir(tmp_path)
    Path("street.jpg").write_bytes(b"a photograph")
    return found


@pytest.mark.skipif(VERSION != "3", reason="the README has snippets for SDK 3")
def test_a_job_and_an_endpoint_are_asked_for(account: Reservation) -> None:
    names: dict[str, Any] = {"role": ROLE, "bucket": "bucket", "job_name": "job"}
    texts = snippets("README.md")
    assert len(texts) == 2
    for text in texts:
        exec(compile(text, "README.md", "exec"), names)
    job = account.asked["CreateTrainingJob"]
    assert {channel["ChannelName"] for channel in job["InputDataConfig"]} == {
        *("train", "train_annotation", "validation", "validation_annotation")
    }
    assert job["StoppingCondition"] == {"MaxRuntimeInSeconds": 86400}
    assert "ContainerEntrypoint" not in job["AlgorithmSpecification"]  # the image's own program
    assert account.asked["CreateModel"]["PrimaryContainer"]["ModelDataUrl"] == (
        "s3://bucket/output/job/output/model.tar.gz"
    )
    assert account.asked["InvokeEndpoint"]["Body"] == b"a photograph"
    assert names["mask"].getpixel((0, 0)) == 1
