"""Register a model with its metrics in the Model Registry, with the SageMaker Python SDK 3.

    pip install 'sagemaker>=3'
    python examples/sdk3_register.py IMAGE ROLE s3://BUCKET/…/model.tar.gz s3://BUCKET/…/statistics.json

statistics.json is in output.tar.gz of the training job. Upload it as a separate object.
"""

import sys

from sagemaker.core.model_metrics import MetricsSource, ModelMetrics
from sagemaker.serve import ModelBuilder

image, role, model, statistics = sys.argv[1:]
builder = ModelBuilder(image_uri=image, s3_model_data_url=model, role_arn=role, instance_type="ml.c5.xlarge")
builder.build()
package = builder.register(
    model_package_group_name="semantic-segmentation",
    content_types=["image/jpeg", "image/png"],
    response_types=["image/png", "application/x-npy", "application/json"],
    inference_instances=["ml.c5.xlarge", "ml.g5.xlarge"],
    transform_instances=["ml.c5.xlarge", "ml.g5.xlarge"],
    model_metrics=ModelMetrics(model_statistics=MetricsSource(content_type="application/json", s3_uri=statistics)),
    approval_status="PendingManualApproval",
    domain="COMPUTER_VISION",
    task="IMAGE_SEGMENTATION",
)
print(package)
