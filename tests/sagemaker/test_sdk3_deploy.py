"""examples/sdk3_*.py after training: in local mode with the built image, and their requests to SageMaker AI.

moto responds to the requests. Invocations go to a container of the image.
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from tests.sagemaker.account import MotoAccount
from tests.sagemaker.conftest import IMAGE, Run, Trained
from tests.sagemaker.test_sdk3_train import ADDRESS, ROLE

MODEL = "s3://bucket/job/output/model.tar.gz"
STATISTICS = "s3://bucket/job/statistics.json"


def assert_built(account: MotoAccount) -> None:
    request = account.only("CreateModel")
    assert request["ExecutionRoleArn"] == ROLE
    assert request["PrimaryContainer"] == {"Image": ADDRESS, "Environment": {}, "ModelDataUrl": MODEL}


def test_local_endpoint_and_local_transform_write_masks(run: Run, trained: Trained, data: Path, tmp_path: Path) -> None:
    log = run("sdk3_local_endpoint.py", IMAGE, trained.archive, data / "validation", tmp_path)
    assert "mask (40, 48), classes [" in log
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"validation-{n}.jpg.out" for n in range(2)]
    for path in tmp_path.iterdir():
        with Image.open(path) as mask:
            assert (mask.mode, mask.size) == ("L", (48, 40))


def test_deploy(run: Run, account: MotoAccount, server: str, photo: Path) -> None:
    account.server = server
    log = run("sdk3_deploy.py", ADDRESS, ROLE, MODEL, photo, environment=account.environment())
    assert "mask (40, 48), classes [" in log
    assert "probabilities (2, 40, 48), same mask: True" in log
    assert_built(account)
    (variant,) = account.only("CreateEndpointConfig")["ProductionVariants"]
    assert variant["ModelName"] == account.only("CreateModel")["ModelName"]
    assert (variant["InstanceType"], variant["InitialInstanceCount"]) == ("ml.c5.xlarge", 1)
    (name,) = {account.only(f"{verb}Endpoint")["EndpointName"] for verb in ("Create", "Delete")}
    assert name == "semantic-segmentation"


def test_transform(run: Run, account: MotoAccount) -> None:
    addresses = ("s3://bucket/images/", "s3://bucket/masks/")
    run("sdk3_transform.py", ADDRESS, ROLE, MODEL, *addresses, environment=account.environment())
    assert_built(account)
    request = account.only("CreateTransformJob")
    assert request["ModelName"] == account.only("CreateModel")["ModelName"]
    assert {name: request[name] for name in ("BatchStrategy", "MaxConcurrentTransforms", "MaxPayloadInMB")} == {
        "BatchStrategy": "SingleRecord",
        "MaxConcurrentTransforms": 1,
        "MaxPayloadInMB": 100,
    }
    assert request["TransformInput"] == {
        "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": addresses[0]}},
        "ContentType": "image/jpeg",
    }
    assert request["TransformOutput"] == {"S3OutputPath": addresses[1], "Accept": "image/png"}
    assert request["TransformResources"] == {"InstanceType": "ml.c5.4xlarge", "InstanceCount": 1}


def test_register(run: Run, account: MotoAccount) -> None:
    log = run("sdk3_register.py", ADDRESS, ROLE, MODEL, STATISTICS, environment=account.environment())
    assert "model-package/semantic-segmentation/1" in log
    request = account.only("CreateModelPackage")
    assert request["ModelMetrics"]["ModelQuality"] == {
        "Statistics": {"ContentType": "application/json", "S3Uri": STATISTICS}
    }
    (container,) = request["InferenceSpecification"]["Containers"]
    assert (container["Image"], container["ModelDataUrl"]) == (ADDRESS, MODEL)
    assert (request["Domain"], request["Task"]) == ("COMPUTER_VISION", "IMAGE_SEGMENTATION")
    assert request["ModelApprovalStatus"] == "PendingManualApproval"
