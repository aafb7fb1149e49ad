"""Train with boto3: managed spot training, checkpoints, metrics, TensorBoard, network isolation.

    pip install boto3
    python examples/boto3_train.py IMAGE ROLE s3://BUCKET/PREFIX

IMAGE is an image URI, or the name of an Algorithm (boto3_algorithm.py). PREFIX contains train, train_annotation,
validation, and validation_annotation.
"""

import sys
import time
from pathlib import Path

import boto3

sys.path.append(str(Path(__file__).parents[1]))  # the repository
from container.metrics import metric_definitions

image, role, prefix = sys.argv[1:]
sagemaker = boto3.client("sagemaker")
name = time.strftime("semantic-segmentation-%Y-%m-%d-%H-%M-%S")
is_image = ":" in image or "/" in image
algorithm = (
    {"TrainingImage": image, "MetricDefinitions": metric_definitions()} if is_image else {"AlgorithmName": image}
)


def channel(name: str, content_type: str) -> dict:
    """Describe a channel whose files SageMaker AI copies to the instance before the job starts."""
    return {
        "ChannelName": name,
        "DataSource": {
            "S3DataSource": {
                "S3DataType": "S3Prefix",
                "S3Uri": f"{prefix}/{name}/",  # without the slash, train also matches train_annotation
                "S3DataDistributionType": "FullyReplicated",
            }
        },
        "ContentType": content_type,
    }


sagemaker.create_training_job(
    TrainingJobName=name,
    RoleArn=role,
    AlgorithmSpecification={"TrainingInputMode": "File", **algorithm},
    HyperParameters={  # every value is a string
        "algorithm": "fcn",
        "backbone": "resnet-50",
        "num_classes": "21",
        "num_training_samples": "1464",
        "epochs": "30",
        "optimizer": "rmsprop",
        "learning_rate": "0.0001",
    },
    InputDataConfig=[
        channel("train", "image/jpeg"),
        channel("train_annotation", "image/png"),
        channel("validation", "image/jpeg"),
        channel("validation_annotation", "image/png"),
    ],
    OutputDataConfig={"S3OutputPath": f"{prefix}/output"},
    ResourceConfig={"InstanceType": "ml.g5.xlarge", "InstanceCount": 1, "VolumeSizeInGB": 50},
    EnableManagedSpotTraining=True,
    # MaxWaitTimeInSeconds includes MaxRuntimeInSeconds and the waiting time
    StoppingCondition={"MaxRuntimeInSeconds": 24 * 3600, "MaxWaitTimeInSeconds": 48 * 3600},
    CheckpointConfig={"S3Uri": f"{prefix}/checkpoints/{name}", "LocalPath": "/opt/ml/checkpoints"},
    TensorBoardOutputConfig={"S3OutputPath": f"{prefix}/tensorboard", "LocalPath": "/opt/ml/output/tensorboard"},
    EnableNetworkIsolation=True,  # the image needs no network
)
sagemaker.get_waiter("training_job_completed_or_stopped").wait(TrainingJobName=name)
print(sagemaker.describe_training_job(TrainingJobName=name)["ModelArtifacts"]["S3ModelArtifacts"])
