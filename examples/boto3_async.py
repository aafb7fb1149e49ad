"""Segment large images with boto3: asynchronous inference with SNS notifications and scaling to zero instances.

    pip install boto3
    python examples/boto3_async.py IMAGE ROLE s3://BUCKET/…/model.tar.gz s3://BUCKET/PHOTO.png s3://BUCKET/MASKS [EMAIL]

A request can have up to 1 GB and take up to 1 hour. The example raises the limits of the server to these values, and
prints the S3 URI of the mask. SageMaker AI publishes the result of each request to one of two SNS topics: for completed
and for failed requests. EMAIL subscribes to both. ROLE needs the permission sns:Publish.
"""

import sys

import boto3

image, role, model, photo, masks, *emails = sys.argv[1:]
sagemaker, runtime = boto3.client("sagemaker"), boto3.client("sagemaker-runtime")
scaling, alarms = boto3.client("application-autoscaling"), boto3.client("cloudwatch")
sns = boto3.client("sns")
name = "semantic-segmentation-async"
topics = {outcome: sns.create_topic(Name=f"{name}-{outcome}")["TopicArn"] for outcome in ("completed", "failed")}
for topic in topics.values():
    for email in emails:
        sns.subscribe(TopicArn=topic, Protocol="email", Endpoint=email)

sagemaker.create_model(
    ModelName=name,
    ExecutionRoleArn=role,
    PrimaryContainer={
        "Image": image,
        "ModelDataUrl": model,
        "Environment": {
            "SAGEMAKER_MODEL_SERVER_TIMEOUT": "3600",
            "MAX_CONTENT_LENGTH": str(2**30),
            "MAX_PIXELS": "400000000",  # fcn uses tiles, so memory does not limit the image size
        },
    },
)
sagemaker.create_endpoint_config(
    EndpointConfigName=name,
    ProductionVariants=[
        {"VariantName": "AllTraffic", "ModelName": name, "InstanceType": "ml.c5.4xlarge", "InitialInstanceCount": 1}
    ],
    AsyncInferenceConfig={
        "OutputConfig": {
            "S3OutputPath": masks,
            "S3FailurePath": f"{masks}/failures",
            "NotificationConfig": {"SuccessTopic": topics["completed"], "ErrorTopic": topics["failed"]},
        },
        "ClientConfig": {"MaxConcurrentInvocationsPerInstance": 2},
    },
)
sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
sagemaker.get_waiter("endpoint_in_service").wait(EndpointName=name)

variant = {
    "ServiceNamespace": "sagemaker",
    "ResourceId": f"endpoint/{name}/variant/AllTraffic",
    "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
}
dimensions = [{"Name": "EndpointName", "Value": name}]
scaling.register_scalable_target(**variant, MinCapacity=0, MaxCapacity=2)
scaling.put_scaling_policy(
    **variant,
    PolicyName="backlog",
    PolicyType="TargetTrackingScaling",
    TargetTrackingScalingPolicyConfiguration={
        "TargetValue": 5,  # waiting requests per instance
        "CustomizedMetricSpecification": {
            "MetricName": "ApproximateBacklogSizePerInstance",
            "Namespace": "AWS/SageMaker",
            "Dimensions": dimensions,
            "Statistic": "Average",
        },
        "ScaleInCooldown": 600,
        "ScaleOutCooldown": 300,
    },
)
# from zero to one instance at the first request: the policy above starts at TargetValue waiting requests
first = scaling.put_scaling_policy(
    **variant,
    PolicyName="first-request",
    PolicyType="StepScaling",
    StepScalingPolicyConfiguration={
        "AdjustmentType": "ChangeInCapacity",
        "MetricAggregationType": "Average",
        "Cooldown": 300,
        "StepAdjustments": [{"MetricIntervalLowerBound": 0, "ScalingAdjustment": 1}],
    },
)
alarms.put_metric_alarm(
    AlarmName=f"{name}-first-request",
    Namespace="AWS/SageMaker",
    MetricName="HasBacklogWithoutCapacity",
    Dimensions=dimensions,
    Statistic="Average",
    Period=60,
    EvaluationPeriods=2,
    DatapointsToAlarm=2,
    Threshold=1,
    ComparisonOperator="GreaterThanOrEqualToThreshold",
    TreatMissingData="missing",
    AlarmActions=[first["PolicyARN"]],
)

response = runtime.invoke_endpoint_async(
    EndpointName=name,
    InputLocation=photo,
    ContentType="image/png",
    Accept="image/png",
    InvocationTimeoutSeconds=3600,
)
print(response["OutputLocation"])
