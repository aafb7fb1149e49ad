"""AWS Lambda function behind an API Gateway HTTP API that returns masks (boto3_lambda.py deploys both).

Lambda limits the request and the response to 6 MB, and base64 adds a third, so an image or a mask can have 4.4 MB.
Larger images go through S3 to an asynchronous endpoint:

    POST /masks           image (up to 4.4 MB) → mask
    POST /uploads         → {"upload": URL, "key": KEY}: send the image to the URL with PUT
    POST /masks?key=KEY   → {"mask": URL, "failure": URL}: one of them exists when the inference is complete
"""

import base64
import json
import os
import uuid
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore.config import Config

MAX_BYTES = 4_400_000  # 6 MB without base64 and the rest of the JSON
URL_SECONDS = 3600

runtime = boto3.client("sagemaker-runtime")
s3 = boto3.client("s3", config=Config(signature_version="s3v4", s3={"addressing_style": "virtual"}))


def handler(event: dict[str, Any], context: object) -> dict[str, Any]:
    """Respond to a request of an HTTP API (payload format 2.0)."""
    method, path = event["requestContext"]["http"]["method"], event["rawPath"]
    key = event.get("queryStringParameters", {}).get("key")
    if (method, path) == ("POST", "/uploads"):
        return create_upload()
    if (method, path) != ("POST", "/masks"):
        return error(404, f"{method} {path} does not exist. Use POST /masks or POST /uploads.")
    try:
        return start_inference(key) if key else infer(event)
    except runtime.exceptions.ModelError as problem:  # the response of the server: status, and {"error": "…"}
        return respond(problem.response["OriginalStatusCode"], problem.response["OriginalMessage"].encode())


def infer(event: dict[str, Any]) -> dict[str, Any]:
    """Return the mask of the image in the request body."""
    body = event.get("body") or ""
    image = base64.b64decode(body) if event.get("isBase64Encoded") else body.encode()
    headers = event.get("headers", {})
    response = runtime.invoke_endpoint(
        EndpointName=os.environ["ENDPOINT"],
        ContentType=headers.get("content-type", "application/octet-stream"),
        Accept=headers.get("accept", "image/png"),
        Body=image,
    )
    content = response["Body"].read()
    if len(content) > MAX_BYTES:
        return error(413, f"The response has {len(content)} bytes. Request a PNG mask, or use POST /uploads.")
    return respond(200, content, response["ContentType"])


def create_upload() -> dict[str, Any]:
    """Return a presigned URL to which the client uploads a large image."""
    key = f"uploads/{uuid.uuid4()}"
    url = s3.generate_presigned_url("put_object", {"Bucket": os.environ["BUCKET"], "Key": key}, URL_SECONDS)
    return respond(200, json.dumps({"upload": url, "key": key}).encode())


def start_inference(key: str) -> dict[str, Any]:
    """Start asynchronous inference, and return presigned URLs of the mask and of the error."""
    if not key.startswith("uploads/"):
        return error(400, f"key is {key}. Use the key that POST /uploads returned.")
    response = runtime.invoke_endpoint_async(
        EndpointName=os.environ["ASYNC_ENDPOINT"],
        InputLocation=f"s3://{os.environ['BUCKET']}/{key}",
        ContentType="application/octet-stream",  # the server detects the format
        Accept="image/png",
    )
    urls = {"mask": download_url(response["OutputLocation"]), "failure": download_url(response["FailureLocation"])}
    return respond(202, json.dumps(urls).encode())


def download_url(location: str) -> str:
    """Return a presigned URL for an S3 URI. S3 returns HTTP 404 or 403 until the object exists."""
    parts = urlsplit(location)
    parameters = {"Bucket": parts.netloc, "Key": parts.path.lstrip("/")}
    return str(s3.generate_presigned_url("get_object", parameters, URL_SECONDS))


def error(status: int, message: str) -> dict[str, Any]:
    """Return an error response in the format of the server."""
    return respond(status, json.dumps({"error": message}).encode())


def respond(status: int, content: bytes, content_type: str = "application/json") -> dict[str, Any]:
    """Return a response of an HTTP API."""
    return {
        "statusCode": status,
        "headers": {"content-type": content_type},
        "body": base64.b64encode(content).decode(),
        "isBase64Encoded": True,
    }
