"""Segment all images of an S3 prefix with boto3: batch transform.

    pip install boto3
    python examples/boto3_transform.py IMAGE ROLE s3://BUCKET/…/model.tar.gz s3://BUCKET/IMAGES/ s3://BUCKET/MASKS/

The output of IMAGES/a.jpg is MASKS/a.jpg.out, a PNG with the class ID of each pixel.
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
    MaxConcurrentTransforms=1,  # MaxConcurrentTransforms × MaxPayloadInMB can be at most 100
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
