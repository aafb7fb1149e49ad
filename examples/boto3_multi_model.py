"""Serve all models of an S3 prefix from a multi-model endpoint with boto3.

    pip install boto3 numpy pillow
    python examples/boto3_multi_model.py IMAGE ROLE s3://BUCKET/MODELS/ PHOTO.jpg cats.tar.gz dogs.tar.gz

The names are those of archives in the prefix. The server loads a model on its first request, and unloads the least
recently used model if the memory is full.
"""

import io
import sys
from pathlib import Path

import boto3
import numpy as np
from PIL import Image

image, role, models, photo, *names = sys.argv[1:]
sagemaker, runtime = boto3.client("sagemaker"), boto3.client("sagemaker-runtime")
name = "semantic-segmentation-models"

sagemaker.create_model(
    ModelName=name,
    ExecutionRoleArn=role,
    PrimaryContainer={"Image": image, "Mode": "MultiModel", "ModelDataUrl": models},
    EnableNetworkIsolation=True,
)
sagemaker.create_endpoint_config(
    EndpointConfigName=name,
    ProductionVariants=[
        {"VariantName": "AllTraffic", "ModelName": name, "InstanceType": "ml.c5.2xlarge", "InitialInstanceCount": 1}
    ],
)
sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
sagemaker.get_waiter("endpoint_in_service").wait(EndpointName=name)
for archive in names:
    response = runtime.invoke_endpoint(
        EndpointName=name,
        TargetModel=archive,
        ContentType="image/jpeg",
        Accept="image/png",
        Body=Path(photo).read_bytes(),
    )
    mask = np.asarray(Image.open(io.BytesIO(response["Body"].read())))
    print(f"{archive}: mask {mask.shape}, classes {np.unique(mask).tolist()}")
