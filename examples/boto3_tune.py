"""Search for the best learning rate, batch and optimizer with boto3: a tuning job on managed spot.

    pip install boto3
    python examples/boto3_tune.py IMAGE ROLE s3://BUCKET/PREFIX

PREFIX holds train, train_annotation, validation and validation_annotation.
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


def channel(name: str, content_type: str) -> dict:
    """Describe a channel whose files are copied to the instance before training begins."""
    source = {"S3DataType": "S3Prefix", "S3Uri": f"{prefix}/{name}/", "S3DataDistributionType": "FullyReplicated"}
    return {"ChannelName": name, "DataSource": {"S3DataSource": source}, "ContentType": content_type}


sagemaker.create_hyper_parameter_tuning_job(
    HyperParameterTuningJobName=name,
    HyperParameterTuningJobConfig={
        "Strategy": "Bayesian",
        "HyperParameterTuningJobObjective": {"Type": "Maximize", "MetricName": "validation:mIOU"},
        "ResourceLimits": {"MaxNumberOfTrainingJobs": 20, "MaxParallelTrainingJobs": 2},
        "TrainingJobEarlyStoppingType": "Auto",  # a job that is stopped leaves its best model
        "ParameterRanges": {
            "ContinuousParameterRanges": [
                {"Name": "learning_rate", "MinValue": "0.00001", "MaxValue": "0.1", "ScalingType": "Logarithmic"},
                {"Name": "weight_decay", "MinValue": "0.00001", "MaxValue": "0.01", "ScalingType": "Logarithmic"},
            ],
            "IntegerParameterRanges": [
                {"Name": "mini_batch_size", "MinValue": "8", "MaxValue": "32", "ScalingType": "Auto"}
            ],
            "CategoricalParameterRanges": [{"Name": "optimizer", "Values": ["sgd", "adam", "rmsprop"]}],
        },
    },
    TrainingJobDefinition={
        "RoleArn": role,
        "AlgorithmSpecification": {
            "TrainingImage": image,
            "TrainingInputMode": "File",
            "MetricDefinitions": metric_definitions("validation:mIOU"),
        },
        "StaticHyperParameters": {
            "num_classes": "21",
            "num_training_samples": "1464",
            "epochs": "10",
            "early_stopping": "True",
            "_report_minutes": "0",  # the search compares the log's figures: no full-size scores, no int8 graph
        },
        "InputDataConfig": [
            channel("train", "image/jpeg"),
            channel("train_annotation", "image/png"),
            channel("validation", "image/jpeg"),
            channel("validation_annotation", "image/png"),
        ],
        "OutputDataConfig": {"S3OutputPath": f"{prefix}/output"},
        "ResourceConfig": {"InstanceType": "ml.g5.xlarge", "InstanceCount": 1, "VolumeSizeInGB": 50},
        "EnableManagedSpotTraining": True,  # without checkpoints, of which each job would want a prefix of its own
        "StoppingCondition": {"MaxRuntimeInSeconds": 12 * 3600, "MaxWaitTimeInSeconds": 24 * 3600},
        "EnableNetworkIsolation": True,
    },
)
print(name)
