"""Train with the SageMaker Python SDK 3, on SageMaker AI (DATA is an S3 prefix) or on this machine (a directory).

    pip install 'sagemaker>=3'
    python examples/sdk3_train.py IMAGE s3://BUCKET/PREFIX --role ROLE
    python examples/sdk3_train.py sagemaker-semantic-segmentation:cpu DIRECTORY    (with Docker, without an account)

DATA contains train, train_annotation, validation, and validation_annotation. On SageMaker AI, IMAGE can also be the
name of an Algorithm (boto3_algorithm.py). NAME=VALUE changes hyperparameters, and --instances the number of instances.
The image includes the program, so there is no `source_code`.
"""

import argparse
import os
import sys
from pathlib import Path

from sagemaker.core.training.configs import (
    CheckpointConfig,
    Compute,
    InputData,
    MetricDefinition,
    OutputDataConfig,
    StoppingCondition,
    TensorBoardOutputConfig,
)
from sagemaker.train import ModelTrainer
from sagemaker.train.model_trainer import Mode

sys.path.append(str(Path(__file__).parents[1]))  # the repository
from container.metrics import metric_definitions

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("image")
parser.add_argument("data")
parser.add_argument("--role", help="execution role on SageMaker")
parser.add_argument("--output", default="output", help="directory for the archives of a job on this machine")
parser.add_argument("--instances", type=int, default=1, help="number of instances (default: 1)")
parser.add_argument("hyperparameters", nargs="*", metavar="NAME=VALUE")
arguments = parser.parse_intermixed_args()
data = arguments.data.rstrip("/")
local = not data.startswith("s3://")
if local and os.path.exists(arguments.output):
    parser.error(f"{arguments.output} contains an earlier job, whose files the SDK would mix in. Set another --output.")
is_image = ":" in arguments.image or "/" in arguments.image

trainer = ModelTrainer(
    training_mode=Mode.LOCAL_CONTAINER if local else Mode.SAGEMAKER_TRAINING_JOB,
    training_image=arguments.image if is_image else None,
    algorithm_name=None if is_image else arguments.image,
    role=arguments.role,
    base_job_name="semantic-segmentation",
    hyperparameters={
        "algorithm": "fcn",
        "backbone": "resnet-50",
        "num_classes": 21,
        "num_training_samples": 1464,
        "epochs": 30,
        "optimizer": "rmsprop",
        "learning_rate": 0.0001,
        **dict(pair.split("=", 1) for pair in arguments.hyperparameters),
    },
    compute=Compute(
        instance_type="local_cpu" if local else "ml.g5.xlarge",
        instance_count=arguments.instances,
        volume_size_in_gb=50,
        enable_managed_spot_training=True,
    ),
    # max_wait_time_in_seconds includes max_runtime_in_seconds and the waiting time
    stopping_condition=StoppingCondition(max_runtime_in_seconds=24 * 3600, max_wait_time_in_seconds=48 * 3600),
    input_data_config=[
        InputData(channel_name="train", data_source=f"{data}/train/", content_type="image/jpeg"),
        InputData(channel_name="train_annotation", data_source=f"{data}/train_annotation/", content_type="image/png"),
        InputData(channel_name="validation", data_source=f"{data}/validation/", content_type="image/jpeg"),
        InputData(
            channel_name="validation_annotation", data_source=f"{data}/validation_annotation/", content_type="image/png"
        ),
    ],
    output_data_config=None if local else OutputDataConfig(s3_output_path=f"{data}/output"),
    checkpoint_config=None if local else CheckpointConfig(s3_uri=f"{data}/checkpoints"),  # an interrupted job resumes
    local_container_root=os.path.abspath(arguments.output),
)
if is_image:  # an Algorithm contains the metric definitions
    trainer.with_metric_definitions(
        [MetricDefinition(name=each["Name"], regex=each["Regex"]) for each in metric_definitions()]
    )
if not local:
    trainer.with_tensorboard_output_config(TensorBoardOutputConfig(s3_output_path=f"{data}/tensorboard"))
trainer.train()
