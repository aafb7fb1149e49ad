"""Train in Pipe mode on an augmented manifest with the SageMaker Python SDK 3.

    pip install 'sagemaker>=3'
    python examples/sdk3_train_pipe.py IMAGE ROLE s3://BUCKET/PREFIX SAMPLES

PREFIX contains train.manifest and validation.manifest with one JSON object per line: {"source-ref": "s3://…/1.jpg",
"annotation-ref": "s3://…/1.png"}. For the output of Ground Truth, set the names of its label attribute and of the
metadata ("label-ref", "label-ref-metadata"), which contains the class names.
"""

import sys

from sagemaker.core.shapes import Channel, DataSource, S3DataSource
from sagemaker.core.training.configs import Compute, OutputDataConfig, StoppingCondition
from sagemaker.train import ModelTrainer

image, role, prefix, samples = sys.argv[1:]


def stream(channel: str) -> Channel:
    """Return a channel that streams the images and annotations of a manifest, each as one RecordIO record."""
    return Channel(
        channel_name=channel,
        data_source=DataSource(
            s3_data_source=S3DataSource(
                s3_data_type="AugmentedManifestFile",
                s3_uri=f"{prefix}/{channel}.manifest",
                s3_data_distribution_type="FullyReplicated",
                attribute_names=["source-ref", "annotation-ref"],
            )
        ),
        content_type="application/x-recordio",
        record_wrapper_type="RecordIO",
        compression_type="None",
        input_mode="Pipe",
    )


trainer = ModelTrainer(
    training_image=image,
    role=role,
    base_job_name="semantic-segmentation-pipe",
    training_input_mode="Pipe",
    hyperparameters={"num_classes": 21, "num_training_samples": int(samples), "epochs": 30},  # samples: required here
    compute=Compute(instance_type="ml.g5.xlarge", instance_count=1, volume_size_in_gb=50),
    stopping_condition=StoppingCondition(max_runtime_in_seconds=24 * 3600),
    output_data_config=OutputDataConfig(s3_output_path=f"{prefix}/output"),
    input_data_config=[stream("train"), stream("validation")],
)
trainer.train()
