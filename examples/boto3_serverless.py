"""Deploy a model to a serverless endpoint with boto3.

    pip install boto3 numpy pillow
    python examples/boto3_serverless.py IMAGE ROLE s3://BUCKET/…/model.tar.gz PHOTO.jpg MEMORY_MB

docs/recipes.md lists the memory that each model architecture needs. Serverless endpoints have no GPU and no network
isolation.
"""

import io
import sys
from pathlib import Path

import boto3
import numpy as np
from PIL import Image

image, role, model, photo, memory = sys.argv[1:]
sagemaker, runtime = boto3.client("sagemaker"), boto3.client("sagemaker-runtime")
name = "semantic-segmentation-serverless"

sagemaker.create_model(ModelName=name, ExecutionRoleArn=role, PrimaryContainer={"Image": image, "ModelDataUrl": model})
sagemaker.create_endpoint_config(
    EndpointConfigName=name,
    ProductionVariants=[
        {
            "VariantName": "AllTraffic",
            "ModelName": name,
            "ServerlessConfig": {"MemorySizeInMB": int(memory), "MaxConcurrency": 5},
        }
    ],
)
sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
sagemaker.get_waiter("endpoint_in_service").wait(EndpointName=name)
response = runtime.invoke_endpoint(
    EndpointName=name, ContentType="image/jpeg", Accept="image/png", Body=Path(photo).read_bytes()
)
mask = np.asarray(Image.open(io.BytesIO(response["Body"].read())))
print(f"mask {mask.shape}, classes {np.unique(mask).tolist()}")
