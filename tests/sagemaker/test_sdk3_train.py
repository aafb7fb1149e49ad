"""examples/sdk3_train*.py: ModelTrainer in LOCAL_CONTAINER mode with the built image, and its requests."""

from __future__ import annotations

import re
import tarfile
from pathlib import Path

from container.metrics import METRIC_DEFINITIONS, metric_definitions
from tests.sagemaker.account import MotoAccount
from tests.sagemaker.conftest import IMAGE, Run, Trained

ADDRESS = "111111111111.dkr.ecr.us-west-2.amazonaws.com/sagemaker-semantic-segmentation:gpu"
ROLE = "arn:aws:iam::111111111111:role/none"


def channel(name: str, content_type: str) -> dict[str, object]:
    return {
        "ChannelName": name,
        "DataSource": {
            "S3DataSource": {
                "S3DataType": "S3Prefix",
                "S3Uri": f"s3://bucket/voc/{name}/",
                "S3DataDistributionType": "FullyReplicated",
            }
        },
        "ContentType": content_type,
        "InputMode": "File",
    }


def test_training_writes_the_archives(trained: Trained) -> None:
    with tarfile.open(trained.archive) as archive:
        assert set(archive.getnames()) >= {"hyperparams.json", "model_best.params", "model_algo-1", "model.onnx"}
    assert {"images": 2, "of": 2, "complete": True}.items() <= trained.report("report.json")["validation"].items()


def test_published_expressions_match_the_metrics_of_the_report(trained: Trained) -> None:
    found = {name: list(map(float, re.findall(regex, trained.log))) for name, regex in METRIC_DEFINITIONS.items()}
    epochs = trained.report("report.json")["epochs"]
    assert len(epochs) == 2
    assert found["validation:mIOU"] == [epoch["mIOU"] for epoch in epochs]
    assert found["train:loss"] == [epoch["train_loss"] for epoch in epochs]
    assert found["train:progress"] == [50, 100]


def test_two_instances_train_one_model(run: Run, data: Path, hyperparameters: list[str], tmp_path: Path) -> None:
    output = tmp_path / "output"
    log = run("sdk3_train.py", IMAGE, data, "--output", output, "--instances", 2, *hyperparameters, "mini_batch_size=2")
    assert "All hosts are connected: hosts=2" in log
    with tarfile.open(output / "compressed_artifacts/model.tar.gz") as archive:
        names = archive.getnames()
    assert {"hyperparams.json", "model_best.params", "model_algo-1", "model.onnx"} <= set(names)
    assert not [name for name in names if "algo-2" in name]


def test_failed_job_fails_train_with_the_reason(
    run: Run, data: Path, hyperparameters: list[str], tmp_path: Path
) -> None:
    output = tmp_path / "output"
    log = run("sdk3_train.py", IMAGE, data, "--output", output, *hyperparameters, "algorithm=unet", fails=True)
    assert re.search("ClientError: 1 hyperparameter is not valid: algorithm must be fcn, .*, not 'unet'", log)
    assert "Failed to run" in log


def test_output_of_an_earlier_job_is_not_overwritten(run: Run, trained: Trained, data: Path) -> None:
    """The SDK would add files of the earlier job to the archives of the later job."""
    log = run("sdk3_train.py", IMAGE, data, "--output", trained.output, fails=True)
    assert f"error: {trained.output} contains an earlier job" in log


def test_training_request(run: Run, account: MotoAccount) -> None:
    run("sdk3_train.py", ADDRESS, "s3://bucket/voc/", "--role", ROLE, environment=account.environment())
    request = account.only("CreateTrainingJob")
    assert re.fullmatch(r"semantic-segmentation-\d{14}", request.pop("TrainingJobName"))
    assert request == {
        "RoleArn": ROLE,
        "AlgorithmSpecification": {
            "TrainingImage": ADDRESS,
            "TrainingInputMode": "File",
            "MetricDefinitions": metric_definitions(),
        },
        "HyperParameters": {
            "algorithm": "fcn",
            "backbone": "resnet-50",
            "num_classes": "21",
            "num_training_samples": "1464",
            "epochs": "30",
            "optimizer": "rmsprop",
            "learning_rate": "0.0001",
        },
        "InputDataConfig": [
            channel("train", "image/jpeg"),
            channel("train_annotation", "image/png"),
            channel("validation", "image/jpeg"),
            channel("validation_annotation", "image/png"),
        ],
        "OutputDataConfig": {"S3OutputPath": "s3://bucket/voc/output", "CompressionType": "GZIP"},
        "ResourceConfig": {"InstanceType": "ml.g5.xlarge", "InstanceCount": 1, "VolumeSizeInGB": 50},
        "StoppingCondition": {"MaxRuntimeInSeconds": 86400, "MaxWaitTimeInSeconds": 172800},
        "EnableManagedSpotTraining": True,
        "CheckpointConfig": {"S3Uri": "s3://bucket/voc/checkpoints", "LocalPath": "/opt/ml/checkpoints"},
        "TensorBoardOutputConfig": {
            "S3OutputPath": "s3://bucket/voc/tensorboard",
            "LocalPath": "/opt/ml/output/tensorboard",
        },
    }


def test_algorithm_replaces_the_image_and_the_metric_definitions(run: Run, account: MotoAccount) -> None:
    run("sdk3_train.py", "my-algorithm", "s3://bucket/voc", "--role", ROLE, environment=account.environment())
    specification = account.only("CreateTrainingJob")["AlgorithmSpecification"]
    assert specification == {"AlgorithmName": "my-algorithm", "TrainingInputMode": "File"}


def test_pipe_mode_request(run: Run, account: MotoAccount) -> None:
    run("sdk3_train_pipe.py", ADDRESS, ROLE, "s3://bucket/voc", "1464", environment=account.environment())
    request = account.only("CreateTrainingJob")
    assert request["AlgorithmSpecification"] == {"TrainingImage": ADDRESS, "TrainingInputMode": "Pipe"}
    assert request["HyperParameters"] == {"num_classes": "21", "num_training_samples": "1464", "epochs": "30"}
    assert request["InputDataConfig"] == [
        {
            "ChannelName": name,
            "DataSource": {
                "S3DataSource": {
                    "S3DataType": "AugmentedManifestFile",
                    "S3Uri": f"s3://bucket/voc/{name}.manifest",
                    "S3DataDistributionType": "FullyReplicated",
                    "AttributeNames": ["source-ref", "annotation-ref"],
                }
            },
            "ContentType": "application/x-recordio",
            "CompressionType": "None",
            "RecordWrapperType": "RecordIO",
            "InputMode": "Pipe",
        }
        for name in ("train", "validation")
    ]
