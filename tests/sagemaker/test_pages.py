"""The snippets of the pages for the SageMaker Python SDK, run with the installed SDK against a stub of AWS."""

from __future__ import annotations

import importlib.metadata
import io
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.aws_stub import Account, body, patch_clients
from tests.conftest import PROGRAM

VERSION = importlib.metadata.version("sagemaker").partition(".")[0]
ROLE = "arn:aws:iam::111111111111:role/none"
TRUST = {"Effect": "Allow", "Principal": {"Service": "sagemaker.amazonaws.com"}, "Action": "sts:AssumeRole"}


def snippets(page: str) -> list[str]:
    """List the blocks of a page for this version of the SDK, with values for the placeholders <…>."""
    found = re.findall(rf"(?ms)^```python sdk{VERSION}\n(.+?)^```", (PROGRAM / page).read_text())
    values = {"<account>": "111111111111", "<region>": "us-west-2", "<name>": "sagemaker-semantic-segmentation"}
    return [re.sub("<[a-z]+>", lambda part: values[part[0]], text) for text in found]


def mask() -> bytes:
    with io.BytesIO() as file:
        Image.new("L", (3, 2), 1).save(file, "PNG")
        return file.getvalue()


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Account:
    role = {"Arn": ROLE, "RoleName": "none", "AssumeRolePolicyDocument": {"Statement": [TRUST]}}
    found = Account(
        {
            "GetCallerIdentity": {"Account": "111111111111", "Arn": ROLE},
            "GetRole": {"Role": role},
            "SimulatePrincipalPolicy": lambda request: {
                "EvaluationResults": [
                    {"EvalActionName": name, "EvalDecision": "allowed"} for name in request["ActionNames"]
                ]
            },
            "CreateTrainingJob": {"TrainingJobArn": "arn"},
            "DescribeTrainingJob": {
                **{"TrainingJobName": "job", "TrainingJobStatus": "Completed", "SecondaryStatus": "Completed"}
            },
            "DescribeLogStreams": {"logStreams": [{"logStreamName": "job/algo-1"}]},
            "GetLogEvents": {"events": [], "nextForwardToken": "none"},
            "CreateModel": {"ModelArn": "arn"},
            "DescribeModel": {"ModelName": "model", "ModelArn": "arn"},
            "CreateEndpointConfig": {"EndpointConfigArn": "arn"},
            "CreateEndpoint": {"EndpointArn": "arn"},
            "DescribeEndpoint": {"EndpointName": "streets", "EndpointArn": "arn", "EndpointStatus": "InService"},
            "InvokeEndpoint": lambda request: body(mask()),
        }
    )
    patch_clients(monkeypatch, found)
    monkeypatch.chdir(tmp_path)
    Path("street.jpg").write_bytes(b"a photograph")
    return found


@pytest.mark.skipif(VERSION != "3", reason="the README has snippets for SDK 3")
def test_readme_snippets_train_deploy_and_predict(account: Account) -> None:
    names: dict[str, Any] = {"role": ROLE, "bucket": "bucket", "job_name": "job"}
    texts = snippets("README.md")
    assert len(texts) == 2
    for text in texts:
        exec(compile(text, "README.md", "exec"), names)
    job = account.only("CreateTrainingJob")
    assert {channel["ChannelName"] for channel in job["InputDataConfig"]} == {
        *("train", "train_annotation", "validation", "validation_annotation")
    }
    assert job["StoppingCondition"] == {"MaxRuntimeInSeconds": 86400}
    assert "ContainerEntrypoint" not in job["AlgorithmSpecification"]  # the program of the image
    assert account.only("CreateModel")["PrimaryContainer"]["ModelDataUrl"] == (
        "s3://bucket/output/job/output/model.tar.gz"
    )
    assert account.only("InvokeEndpoint")["Body"] == b"a photograph"
    assert names["mask"].getpixel((0, 0)) == 1
