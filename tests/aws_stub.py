"""AWS in a test: an in-process account that records requests, and fails the test if the service model rejects one."""

from __future__ import annotations

import contextlib
import io
import json
import runpy
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import botocore.client
import botocore.session
import pytest

from tests.conftest import PROGRAM
from tests.service_model import find_errors

Response = dict[str, Any] | Callable[[dict[str, Any]], dict[str, Any]]


class Account:
    """Requests by operation. `responses` are dictionaries, or functions of the request."""

    def __init__(self, responses: dict[str, Response]) -> None:
        self.responses = responses
        self.requests: list[tuple[str, dict[str, Any]]] = []

    def respond(self, operation: Any, request: dict[str, Any]) -> dict[str, Any]:
        """Check and record a request for a botocore `OperationModel`, and return the response."""
        shape = operation.input_shape
        errors = find_errors(request, shape) if shape is not None else []
        assert errors == [], f"{operation.name}: {errors}"
        self.requests.append((operation.name, request))
        response = self.responses.get(operation.name, {})
        return response(request) if callable(response) else response

    def only(self, operation: str) -> dict[str, Any]:
        """Return the only request for an operation."""
        (found,) = [request for name, request in self.requests if name == operation]
        return found

    def all(self, operation: str) -> list[dict[str, Any]]:
        """Return all requests for an operation."""
        return [request for name, request in self.requests if name == operation]


def set_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set a region, and credentials without an account."""
    names = {"AWS_DEFAULT_REGION": "us-west-2", "AWS_ACCESS_KEY_ID": "none", "AWS_SECRET_ACCESS_KEY": "none"}
    for name, value in names.items():
        monkeypatch.setenv(name, value)


def patch_clients(monkeypatch: pytest.MonkeyPatch, account: Account) -> None:
    """Send the requests of all boto3 clients of this process to `account`, and do not sleep between them."""
    set_credentials(monkeypatch)

    def call(client: Any, operation: str, request: dict[str, Any]) -> dict[str, Any]:
        return account.respond(client.meta.service_model.operation_model(operation), request)

    monkeypatch.setattr(botocore.client.BaseClient, "_make_api_call", call)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)


def run_example(monkeypatch: pytest.MonkeyPatch, name: str, *arguments: object) -> None:
    """Run a file of examples/ in this process, as `python examples/NAME ARGUMENTS` does."""
    path = str(PROGRAM / "examples" / name)
    monkeypatch.setattr(sys, "argv", [path, *map(str, arguments)])
    monkeypatch.setattr(sys, "path", [str(PROGRAM / "examples"), *sys.path])
    runpy.run_path(path, run_name="__main__")


def body(content: bytes, content_type: str = "image/png") -> dict[str, Any]:
    """Return the response of InvokeEndpoint."""
    return {"Body": io.BytesIO(content), "ContentType": content_type}


@contextlib.contextmanager
def sagemaker_server(account: Account) -> Iterator[str]:
    """Serve the SageMaker API to other processes: yields the value of AWS_ENDPOINT_URL_SAGEMAKER."""
    model = botocore.session.get_session().get_service_model("sagemaker")

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            operation = self.headers["X-Amz-Target"].partition(".")[2]
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            try:
                status, response = 200, account.respond(model.operation_model(operation), request)
            except AssertionError as error:
                status, response = 400, {"__type": "ValidationException", "message": str(error)}
            content = json.dumps(response).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
