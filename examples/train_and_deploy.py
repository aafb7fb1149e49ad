"""Run the AWS example for the built-in algorithm with this container: upload, fit, deploy, predict, delete.

https://github.com/aws/amazon-sagemaker-examples (semantic_segmentation_pascalvoc). Only the image URI differs.
Channels, hyperparameters, and client code are those of the AWS example.

    pip install 'sagemaker[local]<3' pillow
    python examples/train_and_deploy.py DATA --image IMAGE --role ROLE        on SageMaker AI
    python examples/train_and_deploy.py DATA --image NAME:TAG --local         on this machine, with Docker

DATA contains the directories train, train_annotation, validation, and validation_annotation.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image
from sagemaker import Session
from sagemaker.amazon.common import read_recordio
from sagemaker.amazon.record_pb2 import Record
from sagemaker.deserializers import BaseDeserializer
from sagemaker.estimator import Estimator
from sagemaker.inputs import TrainingInput
from sagemaker.local import LocalSession
from sagemaker.predictor import Predictor
from sagemaker.serializers import IdentitySerializer

CHANNELS = ("train", "train_annotation", "validation", "validation_annotation")
PREFIX = "semantic-segmentation-demo"


class ImageDeserializer(BaseDeserializer):
    """Deserialize image/png to an array (height, width) of class IDs."""

    ACCEPT = ("image/png",)

    def deserialize(self, stream: BinaryIO, content_type: str) -> np.ndarray:
        """Read the bytes of the response."""
        return np.array(Image.open(io.BytesIO(stream.read())))


class ProbabilityDeserializer(BaseDeserializer):
    """Deserialize application/x-protobuf to an array (classes, height, width) of probabilities."""

    ACCEPT = ("application/x-protobuf",)

    def deserialize(self, stream: BinaryIO, content_type: str) -> np.ndarray:
        """Read one RecordIO record that contains one protobuf message."""
        record = Record()
        record.ParseFromString(next(read_recordio(io.BytesIO(stream.read()))))
        shape = list(record.features["shape"].int32_tensor.values)
        values = np.array(record.features["target"].float32_tensor.values, np.float32)
        return np.squeeze(values.reshape(shape), axis=0)


def fit(arguments: argparse.Namespace, session: Session) -> Estimator:
    """Train on the four channels."""
    if arguments.local:
        channels = {channel: f"file://{(arguments.data / channel).resolve()}" for channel in CHANNELS}
        output = f"file://{arguments.output.resolve()}"
    else:
        channels = {c: session.upload_data(str(arguments.data / c), key_prefix=f"{PREFIX}/{c}") for c in CHANNELS}
        output = f"s3://{session.default_bucket()}/{PREFIX}/output"
    estimator = Estimator(
        arguments.image,
        arguments.role,
        instance_count=1,
        instance_type="local" if arguments.local else "ml.g5.2xlarge",
        volume_size=50,
        max_run=360000,
        output_path=output,
        base_job_name="ss-demo",
        sagemaker_session=session,
    )
    hyperparameters: dict[str, Any] = dict(
        backbone="resnet-50",
        algorithm="fcn",
        use_pretrained_model=True,
        crop_size=240,
        num_classes=21,
        epochs=10,
        learning_rate=0.0001,
        optimizer="rmsprop",
        lr_scheduler="poly",
        mini_batch_size=16,
        validation_mini_batch_size=16,
        early_stopping=True,
        early_stopping_patience=2,
        early_stopping_min_epochs=10,
        num_training_samples=sum(path.suffix == ".jpg" for path in (arguments.data / "train").iterdir()),
    )
    hyperparameters.update(pair.split("=", 1) for pair in arguments.hyperparameters)
    estimator.set_hyperparameters(**hyperparameters)
    estimator.fit({name: TrainingInput(uri) for name, uri in channels.items()})
    return estimator


def predict(predictor: Predictor, photo: Path) -> None:
    """Request the mask of an image, and then its probabilities."""
    content = photo.read_bytes()
    predictor.deserializer = ImageDeserializer()
    mask = predictor.predict(content)
    print(f"mask {mask.shape}, classes {np.unique(mask).tolist()}")
    predictor.deserializer = ProbabilityDeserializer()
    probabilities = predictor.predict(content)
    print(f"probabilities {probabilities.shape}, same mask: {bool((probabilities.argmax(0) == mask).all())}")


def main() -> None:
    """Run the steps of the example."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--image", required=True, help="image URI, or name of a local image")
    parser.add_argument("--role", default="arn:aws:iam::111111111111:role/local", help="execution role on SageMaker AI")
    parser.add_argument("--local", action="store_true", help="run on this machine")
    parser.add_argument("--output", type=Path, default=Path("output"), help="directory for the archives of a local job")
    parser.add_argument("hyperparameters", nargs="*", metavar="NAME=VALUE", help="changes of hyperparameters")
    arguments = parser.parse_intermixed_args()
    session = LocalSession() if arguments.local else Session()
    estimator = fit(arguments, session)
    predictor = estimator.deploy(
        initial_instance_count=1,
        instance_type="local" if arguments.local else "ml.c5.xlarge",
        serializer=IdentitySerializer("image/jpeg"),
    )
    try:
        predict(predictor, min((arguments.data / "validation").glob("*.jpg")))
    finally:
        predictor.delete_endpoint()


if __name__ == "__main__":
    main()
