"""Create an HTTPS API for an endpoint with boto3: an AWS Lambda function behind an API Gateway HTTP API.

    pip install boto3
    python examples/boto3_lambda.py ROLE ENDPOINT ASYNC_ENDPOINT BUCKET

ENDPOINT is a real-time or serverless endpoint. ASYNC_ENDPOINT (boto3_async.py) processes images that are too large for
Lambda, from and to BUCKET. ROLE is a Lambda role with AWSLambdaBasicExecutionRole and these permissions:
sagemaker:InvokeEndpoint, sagemaker:InvokeEndpointAsync, and s3:PutObject and s3:GetObject for the bucket. The example
prints the URL of the API, which is public: add an authorizer before you use it.
"""

import io
import sys
import zipfile
from pathlib import Path

import boto3

role, endpoint, async_endpoint, bucket = sys.argv[1:]
functions, gateway = boto3.client("lambda"), boto3.client("apigatewayv2")
name = "semantic-segmentation"

archive = io.BytesIO()
with zipfile.ZipFile(archive, "w") as file:
    file.write(Path(__file__).with_name("lambda_function.py"), "lambda_function.py")
function = functions.create_function(
    FunctionName=name,
    Role=role,
    Runtime="python3.13",
    Handler="lambda_function.handler",
    Code={"ZipFile": archive.getvalue()},
    Timeout=29,  # seconds; an HTTP API waits for up to 30 s
    MemorySize=512,
    Environment={"Variables": {"ENDPOINT": endpoint, "ASYNC_ENDPOINT": async_endpoint, "BUCKET": bucket}},
)["FunctionArn"]
functions.get_waiter("function_active_v2").wait(FunctionName=name)
api = gateway.create_api(Name=name, ProtocolType="HTTP", Target=function)  # all routes call the function
region, account = function.split(":")[3:5]
functions.add_permission(
    FunctionName=name,
    StatementId="http-api",
    Action="lambda:InvokeFunction",
    Principal="apigateway.amazonaws.com",
    SourceArn=f"arn:{function.split(':')[1]}:execute-api:{region}:{account}:{api['ApiId']}/*",
)
print(api["ApiEndpoint"])
