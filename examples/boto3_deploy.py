"""Deploy a model to a real-time endpoint with boto3, request a mask, and delete the endpoint.

    pip install boto3 numpy pillow
    python examples/boto3_deploy.py IMAGE ROLE s3://BUCKET/…/model.tar.gz PHOTO.jpg

The archive can also be model artifacts of the built-in algorithm: the server converts them at its start.
"""

import io
import sys
from pathlib import Path

import boto3
import numpy as np
from PIL import Image

image, role, model, photo = sys.argv[1:]
sagemaker, runtime = boto3.client("sagemaker"), boto3.client("sagemaker-runtime")
name = "semantic-segmentation"

sagemaker.create_model(
    ModelName=name,
    ExecutionRoleArn=role,
    PrimaryContainer={"Image": image, "ModelDataUrl": model, "Environment": {"SERVE_PRECISION": "auto"}},
    EnableNetworkIsolation=True,
)
sagemaker.create_endpoint_config(
    EndpointConfigName=name,
    ProductionVariants=[
        {"VariantName": "AllTraffic", "ModelName": name, "InstanceType": "ml.c5.xlarge", "InitialInstanceCount": 1}
    ],
)
sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
try:
    sagemaker.get_waiter("endpoint_in_service").wait(EndpointName=name)
    response = runtime.invoke_endpoint(
        EndpointName=name, ContentType="image/jpeg", Accept="image/png", Body=Path(photo).read_bytes()
    )
    mask = np.asarray(Image.open(io.BytesIO(response["Body"].read())))  # (height, width), class ID per pixel
    print(f"mask {mask.shape}, classes {np.unique(mask).tolist()}")
finally:
    sagemaker.delete_endpoint(EndpointName=name)
    sagemaker.delete_endpoint_config(EndpointConfigName=name)
    sagemaker.delete_model(ModelName=name)
