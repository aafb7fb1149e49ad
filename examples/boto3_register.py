"""Register a model with its metrics in the Model Registry, approve it, and create a model from it.

    pip install boto3
    python examples/boto3_register.py IMAGE ROLE s3://BUCKET/…/model.tar.gz s3://BUCKET/…/statistics.json

statistics.json is in output.tar.gz of the training job. Upload it as a separate object.
"""

import sys

import boto3

image, role, model, statistics = sys.argv[1:]
sagemaker = boto3.client("sagemaker")
group = "semantic-segmentation"

if not sagemaker.list_model_package_groups(NameContains=group)["ModelPackageGroupSummaryList"]:
    sagemaker.create_model_package_group(ModelPackageGroupName=group)
package = sagemaker.create_model_package(
    ModelPackageGroupName=group,
    ModelApprovalStatus="PendingManualApproval",
    InferenceSpecification={
        "Containers": [{"Image": image, "ModelDataUrl": model}],
        "SupportedContentTypes": ["image/jpeg", "image/png"],
        "SupportedResponseMIMETypes": ["image/png", "application/x-npy", "application/json"],
        "SupportedRealtimeInferenceInstanceTypes": ["ml.c5.xlarge", "ml.g5.xlarge"],
        "SupportedTransformInstanceTypes": ["ml.c5.xlarge", "ml.g5.xlarge"],
    },
    ModelMetrics={"ModelQuality": {"Statistics": {"ContentType": "application/json", "S3Uri": statistics}}},
    Domain="COMPUTER_VISION",
    Task="IMAGE_SEGMENTATION",
)["ModelPackageArn"]

# after a review of the metrics
sagemaker.update_model_package(ModelPackageArn=package, ModelApprovalStatus="Approved")
sagemaker.create_model(
    ModelName=group,
    ExecutionRoleArn=role,
    Containers=[{"ModelPackageName": package}],
)
print(package)
