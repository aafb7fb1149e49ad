"""Turn a prefix of images into masks with boto3: batch transform.

    pip install boto3
    python examples/boto3_transform.py IMAGE ROLE s3://BUCKET/…/model.tar.gz s3://BUCKET/IMAGES/ s3://BUCKET/MASKS/

Each image becomes MASKS/<its name>.out: a PNG with a class id per pixel.
"""

import sys
import time

import boto3

image, role, model, images, masks = sys.argv[1:]
sagemaker = boto3.client("sagemaker")
name = time.strftime("semantic-segmentation-%Y-%m-%d-%H-%M-%S")

sagemaker.create_model(
    ModelName=name,
    ExecutionRoleArn=role,
    PrimaryContainer={"Image": image, "ModelDataUrl": model},
    EnableNetworkIsolation=True,
)
sagemaker.create_transform_job(
    TransformJobName=name,
    ModelName=name,
    BatchStrategy="SingleRecord",  # an image is one record
    MaxConcurrentTransforms=1,  # times MaxPayloadInMB: at most 100
    MaxPayloadInMB=100,
    ModelClientConfig={"InvocationsTimeoutInSeconds": 60, "InvocationsMaxRetries": 3},
    TransformInput={
        "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": images}},
        "ContentType": "image/jpeg",
        "CompressionType": "None",
        "SplitType": "None",
    },
    TransformOutput={"S3OutputPath": masks, "Accept": "image/png", "AssembleWith": "None"},
    TransformResources={"InstanceType": "ml.c5.4xlarge", "InstanceCount": 1},
)
sagemaker.get_waiter("transform_job_completed_or_stopped").wait(TransformJobName=name)
