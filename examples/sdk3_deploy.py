"""Deploy a model with the SageMaker Python SDK 3, request a mask and probabilities, and delete the endpoint.

    pip install 'sagemaker>=3' numpy pillow
    python examples/sdk3_deploy.py IMAGE ROLE s3://BUCKET/…/model.tar.gz PHOTO.jpg

The archive can also be model artifacts of the built-in algorithm.
"""

import io
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from sagemaker.serve import ModelBuilder

image, role, model, photo = sys.argv[1:]
builder = ModelBuilder(image_uri=image, s3_model_data_url=model, role_arn=role, instance_type="ml.c5.xlarge")
builder.build()
endpoint = builder.deploy(endpoint_name="semantic-segmentation", initial_instance_count=1)
try:
    body = Path(photo).read_bytes()
    response = endpoint.invoke(body=body, content_type="image/jpeg", accept="image/png")
    mask = np.asarray(Image.open(io.BytesIO(response.body.read())))  # (height, width), class ID per pixel
    print(f"mask {mask.shape}, classes {np.unique(mask).tolist()}")

    response = endpoint.invoke(body=body, content_type="image/jpeg", accept="application/x-npy")
    probabilities = np.load(io.BytesIO(response.body.read()))[0]  # (classes, height, width)
    print(f"probabilities {probabilities.shape}, same mask: {bool((probabilities.argmax(0) == mask).all())}")
finally:
    endpoint.delete()
