"""Segment all images of an S3 prefix with the SageMaker Python SDK 3: batch transform.

pip install 'sagemaker>=3'
python examples/sdk3_transform.py IMAGE ROLE s3://BUCKET/…/model.tar.gz s3://BUCKET/IMAGES/ s3://BUCKET/MASKS/
"""

import sys

from sagemaker.serve import ModelBuilder

image, role, model, images, masks = sys.argv[1:]
builder = ModelBuilder(image_uri=image, s3_model_data_url=model, role_arn=role, instance_type="ml.c5.4xlarge")
builder.build()
transformer = builder.transformer(
    instance_count=1,
    instance_type="ml.c5.4xlarge",
    strategy="SingleRecord",  # an image is one record
    accept="image/png",
    output_path=masks,
    max_payload=100,  # MB (default: 6)
    max_concurrent_transforms=1,  # max_concurrent_transforms × max_payload can be at most 100
)
transformer.transform(images, content_type="image/jpeg")
