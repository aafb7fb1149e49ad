"""Run an endpoint and a transform job on this machine with the SageMaker Python SDK 3 and Docker, without an account.

    pip install 'sagemaker>=3' numpy pillow
    python examples/sdk3_local_endpoint.py sagemaker-semantic-segmentation:cpu MODEL_TAR_GZ PHOTOS OUTPUT

ModelBuilder in LOCAL_CONTAINER mode starts only model servers that it knows (sagemaker-serve 1.27). The local session
starts any image, with the requests of boto3. PHOTOS is a directory of JPEG files.
"""

import io
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from sagemaker.core.local.local_session import LocalSession

image, model, photos, output = sys.argv[1], *map(Path, sys.argv[2:])
session = LocalSession()
sagemaker, runtime = session.sagemaker_client, session.sagemaker_runtime_client
name = "semantic-segmentation"

sagemaker.create_model(
    ModelName=name,
    PrimaryContainer={"Image": image, "ModelDataUrl": f"file://{model.resolve()}", "Environment": {}},
    ExecutionRoleArn="arn:aws:iam::111111111111:role/local",
)
sagemaker.create_endpoint_config(
    EndpointConfigName=name,
    ProductionVariants=[
        {"VariantName": "AllTraffic", "ModelName": name, "InstanceType": "local", "InitialInstanceCount": 1}
    ],
)
sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
try:
    response = runtime.invoke_endpoint(
        EndpointName=name,
        ContentType="image/jpeg",
        Accept="image/png",
        Body=min(photos.glob("*.jpg")).read_bytes(),
    )
    mask = np.asarray(Image.open(io.BytesIO(response["Body"].read())))
    print(f"mask {mask.shape}, classes {np.unique(mask).tolist()}")
finally:
    sagemaker.delete_endpoint(EndpointName=name)

sagemaker.create_transform_job(
    TransformJobName=name,
    ModelName=name,
    BatchStrategy="SingleRecord",
    TransformInput={
        "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"file://{photos.resolve()}"}},
        "ContentType": "image/jpeg",
    },
    TransformOutput={"S3OutputPath": f"file://{output.resolve()}", "Accept": "image/png"},
    TransformResources={"InstanceType": "local", "InstanceCount": 1},
)
print(f"masks in {output}: {sorted(path.name for path in output.iterdir())}")
