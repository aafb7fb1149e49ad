"""Tune the learning rate, weight decay, batch size, and optimizer with boto3, on managed spot instances.

    pip install boto3
    python examples/boto3_tune.py IMAGE ROLE s3://BUCKET/PREFIX

IMAGE is an image URI, or the name of an Algorithm (boto3_algorithm.py), which contains the metric definitions. PREFIX
contains train, train_annotation, validation, and validation_annotation.
"""

import sys
import time
from pathlib import Path

import boto3

sys.path.append(str(Path(__file__).parents[1]))  # the repository
from container.metrics import metric_definitions

image, role, prefix = sys.argv[1:]
sagemaker = boto3.client("sagemaker")
name = time.strftime("segmentation-%Y%m%d-%H%M%S")  # at most 32 characters
objective = "validation:mIOU"
is_image = ":" in image or "/" in image
algorithm = (
    {"TrainingImage": image, "MetricDefinitions": metric_definitions(objective)}
    if is_image
    else {"AlgorithmName": image}
)


def channel(name: str, content_type: str) -> dict:
    """Describe a channel whose files SageMaker AI copies to the instance before the job starts."""
    source = {"S3DataType": "S3Prefix", "S3Uri": f"{prefix}/{name}/", "S3DataDistributionType": "FullyReplicated"}
    return {"ChannelName": name, "DataSource": {"S3DataSource": source}, "ContentType": content_type}


sagemaker.create_hyper_parameter_tuning_job(
    HyperParameterTuningJobName=name,
    HyperParameterTuningJobConfig={
        "Strategy": "Bayesian",
        "HyperParameterTuningJobObjective": {"Type": "Maximize", "MetricName": objective},
        "ResourceLimits": {"MaxNumberOfTrainingJobs": 20, "MaxParallelTrainingJobs": 2},
        "TrainingJobEarlyStoppingType": "Auto",  # a stopped job still writes its best model
        "ParameterRanges": {
            "ContinuousParameterRanges": [
                {"Name": "learning_rate", "MinValue": "0.0001", "MaxValue": "0.1", "ScalingType": "Logarithmic"},
                {"Name": "weight_decay", "MinValue": "0.00001", "MaxValue": "0.001", "ScalingType": "Logarithmic"},
            ],
            "IntegerParameterRanges": [
                {"Name": "mini_batch_size", "MinValue": "8", "MaxValue": "32", "ScalingType": "Auto"}
            ],
            "CategoricalParameterRanges": [{"Name": "optimizer", "Values": ["sgd", "adam", "rmsprop"]}],
        },
    },
    TrainingJobDefinition={
        "RoleArn": role,
        "AlgorithmSpecification": {"TrainingInputMode": "File", **algorithm},
        "StaticHyperParameters": {
            "num_classes": "21",
            "num_training_samples": "1464",
            "epochs": "10",
            "early_stopping": "True",
            "_report_minutes": "0",  # no full-resolution evaluation and no int8 model: the log contains the objective
        },
        "InputDataConfig": [
            channel("train", "image/jpeg"),
            channel("train_annotation", "image/png"),
            channel("validation", "image/jpeg"),
            channel("validation_annotation", "image/png"),
        ],
        "OutputDataConfig": {"S3OutputPath": f"{prefix}/output"},
        "ResourceConfig": {"InstanceType": "ml.g5.xlarge", "InstanceCount": 1, "VolumeSizeInGB": 50},
        "EnableManagedSpotTraining": True,  # no checkpoints: all jobs would share one prefix
        "StoppingCondition": {"MaxRuntimeInSeconds": 12 * 3600, "MaxWaitTimeInSeconds": 24 * 3600},
        "EnableNetworkIsolation": True,
    },
)
print(name)
