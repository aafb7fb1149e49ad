"""Deploy a model as an inference component that scales to zero with boto3, and request a mask.

    pip install boto3
    python examples/boto3_components.py IMAGE ROLE s3://BUCKET/…/model.tar.gz PHOTO.jpg MASK.png

An endpoint can have several inference components, which share its instances. Without requests, the endpoint has no
copies and no instances. The first request then fails with HTTP 400, and an alarm starts a copy. This takes minutes.
"""

import sys
import time
from pathlib import Path

import boto3

image, role, model, photo, mask = sys.argv[1:]
sagemaker, runtime = boto3.client("sagemaker"), boto3.client("sagemaker-runtime")
scaling, alarms = boto3.client("application-autoscaling"), boto3.client("cloudwatch")
name = component = "semantic-segmentation-components"

sagemaker.create_model(ModelName=name, ExecutionRoleArn=role, PrimaryContainer={"Image": image, "ModelDataUrl": model})
sagemaker.create_endpoint_config(
    EndpointConfigName=name,
    ExecutionRoleArn=role,  # the variant has no model that could contain the role
    ProductionVariants=[
        {
            "VariantName": "AllTraffic",
            "InstanceType": "ml.c6i.2xlarge",
            "InitialInstanceCount": 1,
            "ManagedInstanceScaling": {"Status": "ENABLED", "MinInstanceCount": 0, "MaxInstanceCount": 2},
            "RoutingConfig": {"RoutingStrategy": "LEAST_OUTSTANDING_REQUESTS"},
        }
    ],
)
sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
sagemaker.get_waiter("endpoint_in_service").wait(EndpointName=name)
sagemaker.create_inference_component(
    InferenceComponentName=component,
    EndpointName=name,
    VariantName="AllTraffic",
    Specification={
        "ModelName": name,
        "ComputeResourceRequirements": {"NumberOfCpuCoresRequired": 4, "MinMemoryRequiredInMb": 6144},
    },
    RuntimeConfig={"CopyCount": 1},
)
while (found := sagemaker.describe_inference_component(InferenceComponentName=component))[
    "InferenceComponentStatus"
] == "Creating":
    time.sleep(15)
if found["InferenceComponentStatus"] != "InService":
    sys.exit(f"The inference component failed: {found['FailureReason']}")

copies = {
    "ServiceNamespace": "sagemaker",
    "ResourceId": f"inference-component/{component}",
    "ScalableDimension": "sagemaker:inference-component:DesiredCopyCount",
}
scaling.register_scalable_target(**copies, MinCapacity=0, MaxCapacity=4)
scaling.put_scaling_policy(
    **copies,
    PolicyName="requests-per-copy",
    PolicyType="TargetTrackingScaling",
    TargetTrackingScalingPolicyConfiguration={
        "TargetValue": 60,  # requests per copy and minute
        "PredefinedMetricSpecification": {"PredefinedMetricType": "SageMakerInferenceComponentInvocationsPerCopy"},
        "ScaleInCooldown": 300,
        "ScaleOutCooldown": 60,
    },
)
# from zero to one copy: the metric of the policy above has no data without copies
first = scaling.put_scaling_policy(
    **copies,
    PolicyName="first-request",
    PolicyType="StepScaling",
    StepScalingPolicyConfiguration={
        "AdjustmentType": "ChangeInCapacity",
        "MetricAggregationType": "Maximum",
        "Cooldown": 60,
        "StepAdjustments": [{"MetricIntervalLowerBound": 0, "ScalingAdjustment": 1}],
    },
)
alarms.put_metric_alarm(
    AlarmName=f"{component}-first-request",
    Namespace="AWS/SageMaker",
    MetricName="NoCapacityInvocationFailures",
    Dimensions=[{"Name": "InferenceComponentName", "Value": component}],
    Statistic="Sum",
    Period=60,
    EvaluationPeriods=1,
    DatapointsToAlarm=1,
    Threshold=1,
    ComparisonOperator="GreaterThanOrEqualToThreshold",
    TreatMissingData="missing",
    AlarmActions=[first["PolicyARN"]],
)

response = runtime.invoke_endpoint(
    EndpointName=name,
    InferenceComponentName=component,
    ContentType="image/jpeg",
    Accept="image/png",
    Body=Path(photo).read_bytes(),
)
Path(mask).write_bytes(response["Body"].read())
