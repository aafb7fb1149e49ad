"""Train with SageMaker's SDK 3: on SageMaker when DATA is an S3 prefix, on this machine when it is a directory.

    pip install 'sagemaker>=3'
    python examples/sdk3_train.py IMAGE s3://BUCKET/PREFIX --role ROLE
    python examples/sdk3_train.py semantic-segmentation:cpu DIRECTORY          (with Docker, without an account)

DATA holds train, train_annotation, validation and validation_annotation. NAME=VALUE changes hyperparameters;
--instances 2 trains on two. No `source_code`: the image has its own program.
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
parser.add_argument("--output", default="output", help="where a job on this machine puts its archives")
parser.add_argument("--instances", type=int, default=1, help="machines that train together (default: 1)")
parser.add_argument("hyperparameters", nargs="*", metavar="NAME=VALUE")
arguments = parser.parse_intermixed_args()
data = arguments.data.rstrip("/")
local = not data.startswith("s3://")
if local and os.path.exists(arguments.output):
    parser.error(f"{arguments.output} holds an earlier job, whose files the SDK would mix in: name another --output")

trainer = ModelTrainer(
    training_mode=Mode.LOCAL_CONTAINER if local else Mode.SAGEMAKER_TRAINING_JOB,
    training_image=arguments.image,
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
    # of spot's two times, the second holds the first and every wait for an instance
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
    checkpoint_config=None if local else CheckpointConfig(s3_uri=f"{data}/checkpoints"),  # a reclaimed job goes on
    local_container_root=os.path.abspath(arguments.output),
)
trainer.with_metric_definitions(
    [MetricDefinition(name=each["Name"], regex=each["Regex"]) for each in metric_definitions()]
)
if not local:
    trainer.with_tensorboard_output_config(TensorBoardOutputConfig(s3_output_path=f"{data}/tensorboard"))
trainer.train()
