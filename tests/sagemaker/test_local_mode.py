"""The steps of a notebook for the built-in algorithm with SDK 2, run with this image: only the image URI differs."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import boto3
import numpy as np
import pytest
from moto import mock_aws
from PIL import Image
from sagemaker.amazon.common import RecordDeserializer
from sagemaker.deserializers import BaseDeserializer, NumpyDeserializer
from sagemaker.estimator import Estimator
from sagemaker.local import LocalSession
from sagemaker.parameter import ContinuousParameter
from sagemaker.predictor import Predictor
from sagemaker.serializers import IdentitySerializer
from sagemaker.tuner import HyperparameterTuner

from container.metrics import metric_definitions
from tests.conftest import job_factory
from tests.sagemaker.conftest import CHANNELS, IMAGE, Run

ROLE = "arn:aws:iam::111111111111:role/none"


class ImageDeserializer(BaseDeserializer):
    """Deserializer of the AWS notebook."""

    def __init__(self, accept: str = "image/png") -> None:
        self.accept = accept

    @property
    def ACCEPT(self) -> tuple[str]:
        return (self.accept,)

    def deserialize(self, stream: BinaryIO, content_type: str) -> np.ndarray:
        with contextlib.closing(stream):
            return np.array(Image.open(io.BytesIO(stream.read())))


class Job:
    """A finished `fit`."""

    def __init__(self, estimator: Estimator, root: Path, log: str) -> None:
        self.estimator = estimator
        self.root = root
        self.log = log

    def report(self) -> dict[str, Any]:
        with tarfile.open(self.root / "out/output.tar.gz") as archive:
            for member in archive:
                if Path(member.name).name == "report.json":
                    content = archive.extractfile(member)
                    assert content
                    return dict(json.load(content))
        raise AssertionError("output.tar.gz holds no report.json")


def fit(root: Path, local_settings: dict[str, object], name: str, instances: int = 1) -> Job:
    """Train in local mode on the job that was made in `root`."""
    session = LocalSession()
    session.config = local_settings
    estimator = Estimator(
        image_uri=IMAGE,
        role=ROLE,
        instance_count=instances,
        instance_type="local",
        output_path=f"file://{root}/out",
        sagemaker_session=session,
        hyperparameters=json.loads((root / "input/config/hyperparameters.json").read_text()),
    )
    log = io.StringIO()
    with contextlib.redirect_stdout(log):
        estimator.fit({channel: f"file://{root}/input/data/{channel}" for channel in CHANNELS}, job_name=name)
    return Job(estimator, root, log.getvalue())


@pytest.fixture(scope="session")
def job(local_settings: dict[str, object], tmp_path_factory: pytest.TempPathFactory) -> Job:
    root = tmp_path_factory.mktemp("job")
    job_factory(root)(train=4, validation=2, epochs="2", backbone="resnet-18")
    return fit(root, local_settings, "job")


@pytest.fixture
def predictor(job: Job) -> Iterator[Predictor]:
    predictor = job.estimator.deploy(1, "local", serializer=IdentitySerializer("image/jpeg"), wait=False)
    try:
        yield predictor
    finally:
        predictor.delete_endpoint()


def photo(job: Job) -> bytes:
    return (job.root / "input/data/validation/validation-0.jpg").read_bytes()


def test_fit_writes_the_archives(job: Job) -> None:
    with tarfile.open(job.root / "out/model.tar.gz") as archive:
        names = {os.path.normpath(name) for name in archive.getnames()}
    assert names >= {"hyperparams.json", "model_best.params", "model_algo-1"}


def test_expressions_of_the_tuner_match_the_metrics_of_the_report(job: Job) -> None:
    tuner = HyperparameterTuner(
        job.estimator,
        objective_metric_name="validation:mIOU",
        hyperparameter_ranges={"learning_rate": ContinuousParameter(0.0001, 0.1)},
        metric_definitions=metric_definitions(),
    )
    found = {
        metric["Name"]: [float(value) for value in re.findall(metric["Regex"], job.log)]
        for metric in tuner.metric_definitions
    }
    epochs = job.report()["epochs"]
    assert len(epochs) == 2
    assert found[tuner.objective_metric_name] == [epoch["mIOU"] for epoch in epochs]
    assert found["train:loss"] == [epoch["train_loss"] for epoch in epochs]
    assert found["train:progress"] == [50, 100]


def test_all_response_formats_contain_the_same_mask(job: Job, predictor: Predictor) -> None:
    predictor.deserializer = ImageDeserializer()
    mask = predictor.predict(photo(job))
    assert (mask.shape, mask.dtype) == ((40, 48), np.uint8)
    assert mask.max() < 2

    predictor.deserializer = NumpyDeserializer()
    probabilities = predictor.predict(photo(job))
    assert probabilities.shape == (1, 2, 40, 48)
    np.testing.assert_array_equal(np.argmax(np.squeeze(probabilities, 0), axis=0), mask)

    for accept in ("application/x-protobuf", "application/x-recordio-protobuf"):
        predictor.deserializer = RecordDeserializer(accept=accept)
        (record,) = predictor.predict(photo(job))
        target = list(record.features["target"].float32_tensor.values)
        shape = list(record.features["shape"].int32_tensor.values)
        assert shape == [1, 2, 40, 48]
        np.testing.assert_array_equal(np.array(target).reshape(shape)[0].argmax(0), mask)


def test_batch_transform_writes_one_mask_per_image(job: Job, tmp_path: Path) -> None:
    transformer = job.estimator.transformer(
        1, "local", strategy="SingleRecord", accept="image/png", output_path=f"file://{tmp_path}"
    )
    photos = job.root / "input/data/validation"
    transformer.transform(f"file://{photos}", content_type="image/jpeg", wait=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"validation-{n}.jpg.out" for n in range(2)]
    for path in tmp_path.iterdir():
        with Image.open(path) as mask:
            assert (mask.mode, mask.size) == ("L", (48, 40))


def test_prefix_without_slash_uses_only_files_of_the_channel(job: Job, tmp_path: Path) -> None:
    """As in AWS's notebook, `s3://…/train` matches the annotations too, which the SDK puts into `train/_annotation`."""
    data = job.root / "input/data"
    log = io.StringIO()
    with mock_aws(), contextlib.redirect_stdout(log):
        storage = boto3.client("s3")
        storage.create_bucket(
            Bucket="bucket", CreateBucketConfiguration={"LocationConstraint": os.environ["AWS_DEFAULT_REGION"]}
        )
        for path in (path for channel in CHANNELS for path in (data / channel).iterdir()):
            storage.put_object(Bucket="bucket", Key=path.relative_to(data).as_posix(), Body=path.read_bytes())
        session = LocalSession(boto3.Session())
        session.config = job.estimator.sagemaker_session.config
        estimator = Estimator(
            image_uri=job.estimator.image_uri,
            role=ROLE,
            instance_count=1,
            instance_type="local",
            output_path=f"file://{tmp_path}",
            sagemaker_session=session,
            hyperparameters={**job.estimator.hyperparameters(), "epochs": "1"},
        )
        estimator.fit({channel: f"s3://bucket/{channel}" for channel in CHANNELS}, job_name="prefixes")
    for channel, count in (("train", 4), ("validation", 2)):
        assert (
            f"channel {channel}: {count} files in {channel}/_annotation belong to another channel and are skipped. An "
            "S3 prefix without a slash at its end also matches these files. Add a slash to the S3Uri of the channel "
            f"(s3://…/{channel}/)"
        ) in log.getvalue()
    assert (tmp_path / "model.tar.gz").is_file()


def test_failed_job_fails_fit(job: Job, tmp_path: Path) -> None:
    estimator = Estimator(
        image_uri=job.estimator.image_uri,
        role=ROLE,
        instance_count=1,
        instance_type="local",
        output_path=f"file://{tmp_path}",
        sagemaker_session=job.estimator.sagemaker_session,
        hyperparameters={"num_classes": 2, "num_training_samples": 4, "algorithm": "unet"},
    )
    with pytest.raises(RuntimeError, match="Failed to run"):
        estimator.fit({channel: f"file://{job.root}/input/data/{channel}" for channel in CHANNELS}, job_name="failed")


def test_aws_example_runs_with_this_image(run: Run, data: Path, hyperparameters: list[str], tmp_path: Path) -> None:
    log = run("train_and_deploy.py", data, "--image", IMAGE, "--local", "--output", tmp_path, *hyperparameters)
    assert "mask (40, 48), classes [" in log
    assert "probabilities (2, 40, 48), same mask: True" in log
    assert (tmp_path / "model.tar.gz").is_file()


def test_two_instances_train_one_model(local_settings: dict[str, object], tmp_path: Path) -> None:
    job_factory(tmp_path)(train=4, validation=2, backbone="resnet-18")
    two = fit(tmp_path, local_settings, "two", instances=2)
    assert "All hosts are connected: hosts=2" in two.log
    with tarfile.open(tmp_path / "out/model.tar.gz") as archive:
        assert {"model_best.params", "model_algo-1", "model.onnx"} <= {Path(name).name for name in archive.getnames()}
