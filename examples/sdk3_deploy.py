"""Deploy a model with SageMaker's SDK 3, ask for a mask and for probabilities, and delete the endpoint.

    pip install 'sagemaker>=3' numpy pillow
    python examples/sdk3_deploy.py IMAGE ROLE s3://BUCKET/…/model.tar.gz PHOTO.jpg

The archive may be one of the built-in algorithm's own jobs.
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
    answer = endpoint.invoke(body=body, content_type="image/jpeg", accept="image/png")
    mask = np.asarray(Image.open(io.BytesIO(answer.body.read())))  # (height, width), a class id per pixel
    print(f"mask {mask.shape}, classes {np.unique(mask).tolist()}")

    answer = endpoint.invoke(body=body, content_type="image/jpeg", accept="application/x-npy")
    probabilities = np.load(io.BytesIO(answer.body.read()))[0]  # (classes, height, width)
    print(f"probabilities {probabilities.shape}, same mask: {bool((probabilities.argmax(0) == mask).all())}")
finally:
    endpoint.delete()
