"""examples/sdk2_algorithm.py: training and tuning with a registered Algorithm and the SageMaker Python SDK 2."""

from __future__ import annotations

import importlib.util
from typing import Any

import boto3
import pytest

from tests.aws_stub import Account, patch_clients, run_example
from tests.conftest import PROGRAM

ROLE = "arn:aws:iam::111111111111:role/none"
IMAGE = "111111111111.dkr.ecr.us-west-2.amazonaws.com/sagemaker-semantic-segmentation:gpu"


def registered() -> dict[str, Any]:
    """Return the response of DescribeAlgorithm for the request of examples/boto3_algorithm.py."""
    spec = importlib.util.spec_from_file_location("boto3_algorithm", PROGRAM / "examples/boto3_algorithm.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    client = boto3.client("sagemaker", region_name="us-west-2")
    return {**module.create_request(client, "semantic-segmentation", IMAGE), "AlgorithmStatus": "Completed"}


@pytest.fixture
def account(local_settings: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> Account:
    tuned = {"TrainingJobName": "best", "TunedHyperParameters": {"learning_rate": "0.02", "optimizer": "nag"}}
    account = Account(
        {
            "DescribeAlgorithm": registered(),
            "DescribeHyperParameterTuningJob": {
                "HyperParameterTuningJobStatus": "Completed",
                "BestTrainingJob": tuned,
            },
            "DescribeTrainingJob": {
                "TrainingJobStatus": "Completed",
                "SecondaryStatus": "Completed",
                "ResourceConfig": {"InstanceCount": 1},
                "ModelArtifacts": {"S3ModelArtifacts": "s3://bucket/voc/output/job/output/model.tar.gz"},
            },
            "DescribeLogStreams": {"logStreams": []},
        }
    )
    patch_clients(monkeypatch, account)
    return account


def test_jobs_use_the_algorithm_without_metric_definitions(
    account: Account, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_example(monkeypatch, "sdk2_algorithm.py", "semantic-segmentation", ROLE, "s3://bucket/voc")
    tuning, job = account.only("CreateHyperParameterTuningJob"), account.only("CreateTrainingJob")
    expected = {"AlgorithmName": "semantic-segmentation", "TrainingInputMode": "File"}
    assert tuning["TrainingJobDefinition"]["AlgorithmSpecification"] == expected
    assert job["AlgorithmSpecification"].items() >= expected.items()
    assert "MetricDefinitions" not in job["AlgorithmSpecification"]
    objective = tuning["HyperParameterTuningJobConfig"]["HyperParameterTuningJobObjective"]
    assert objective == {"Type": "Maximize", "MetricName": "validation:mIOU"}
    best = {"learning_rate": "0.02", "optimizer": "nag", "epochs": "30", "num_classes": "21"}
    assert job["HyperParameters"].items() >= best.items()
    assert "s3://bucket/voc/output/job/output/model.tar.gz" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("hyperparameters", "message"),
    [
        ({"num_classes": 300}, "Invalid value: 300"),
        ({"num_classes": 21, "backbone": "resnet-152"}, "Invalid value: resnet-152"),
        ({"num_classes": 21, "learning_rates": 1}, "Invalid hyperparameter: learning_rates"),
        ({"epochs": 2}, "Required hyperparameter: num_classes is not set"),
    ],
)
def test_sdk_rejects_hyperparameters_that_the_algorithm_does_not_allow(
    account: Account, hyperparameters: dict[str, Any], message: str
) -> None:
    from sagemaker.algorithm import AlgorithmEstimator

    with pytest.raises(ValueError, match=message):
        AlgorithmEstimator(
            "semantic-segmentation",
            ROLE,
            instance_count=1,
            instance_type="ml.g5.xlarge",
            hyperparameters=hyperparameters,
        )


def test_sdk_rejects_an_unsupported_instance_type(account: Account) -> None:
    from sagemaker.algorithm import AlgorithmEstimator

    with pytest.raises(ValueError, match=r"Invalid instance_type: ml\.p5\.48xlarge"):
        AlgorithmEstimator("semantic-segmentation", ROLE, instance_count=1, instance_type="ml.p5.48xlarge")
