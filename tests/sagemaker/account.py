"""A stub of AWS for other processes: moto responds, and the requests are checked against the service model of botocore.

Examples find the stub in `AWS_ENDPOINT_URL`, so the tests run the files that users run. Invocations of an endpoint go
to a container of the image, as SageMaker AI sends them.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import botocore.session
import requests
from botocore.model import OperationModel
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

from tests.service_model import find_errors

SERVICES = ("sagemaker", "application-autoscaling")  # the requests that are recorded and checked
INVOCATION = re.compile(r"/endpoints/[^/]+/invocations")
TARGET_MODEL = "X-Amzn-Sagemaker-Target-Model"

Start = Callable[..., Any]


class MotoAccount:
    """Recorded requests and their errors; `server` is the URL of the container that processes invocations."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.server = ""
        self.models: dict[str, str] = {}  # directory of each TargetModel of a multi-model endpoint
        self._requests: list[tuple[str, dict[str, Any]]] = []
        self.errors: list[str] = []
        self._moto = DomainDispatcherApplication(create_backend_app)

    def all(self, operation: str) -> list[dict[str, Any]]:
        """Return the requests for an operation in order."""
        return [request for name, request in self._requests if name == operation]

    def only(self, operation: str) -> dict[str, Any]:
        """Return the only request for an operation."""
        (request,) = self.all(operation)
        return request

    def environment(self) -> dict[str, str]:
        """Return the environment variables for a process that uses this account."""
        return {**os.environ, "AWS_ENDPOINT_URL": self.url, "SAGEMAKER_VALIDATE_ROLE": "false"}

    def __call__(self, environ: dict[str, Any], start: Start) -> Iterable[bytes]:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        if INVOCATION.fullmatch(environ["PATH_INFO"]) and self.server:
            return self._invoke(environ, body, start)
        target = environ.get("HTTP_X_AMZ_TARGET", "")
        if found := operations().get(target):
            request = json.loads(body)
            self._requests.append((found.name, request))
            self.errors += [f"{found.name}: {error}" for error in find_errors(request, found.input_shape)]
        environ["wsgi.input"] = io.BytesIO(body)
        response = self._moto(environ, start)
        return [_without_empty(b"".join(response))] if target.startswith("SageMaker.Describe") else response

    def _invoke(self, environ: dict[str, Any], body: bytes, start: Start) -> list[bytes]:
        path = "/invocations"
        headers = {"Content-Type": environ.get("CONTENT_TYPE", ""), "Accept": environ.get("HTTP_ACCEPT", "")}
        if model := environ.get("HTTP_" + TARGET_MODEL.upper().replace("-", "_")):
            if url := self.models.pop(model, None):
                content = {"model_name": "m-" + model.replace("/", "-"), "url": url}
                requests.post(f"{self.server}/models", json=content, timeout=60).raise_for_status()
            path = f"/models/m-{model.replace('/', '-')}/invoke"
        response = requests.post(self.server + path, body, headers=headers, timeout=60)
        start(f"{response.status_code} {response.reason}", [("Content-Type", response.headers["Content-Type"])])
        return [response.content]


@contextlib.contextmanager
def start_account() -> Iterator[MotoAccount]:
    """Start an account on a free port."""
    account = MotoAccount("")
    server = make_server(
        "127.0.0.1", 0, lambda *arguments: account(*arguments), threaded=True, request_handler=_Handler
    )
    account.url = f"http://127.0.0.1:{server.port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        requests.post(f"{account.url}/moto-api/reset", timeout=60).raise_for_status()
        yield account
    finally:
        server.shutdown()
        thread.join()


class _Handler(WSGIRequestHandler):
    def log_request(self, *arguments: Any) -> None:
        pass


@functools.cache
def operations() -> dict[str, OperationModel]:
    """Return the operations of `SERVICES` by the value of X-Amz-Target."""
    session = botocore.session.get_session()
    models = [session.get_service_model(service) for service in SERVICES]
    return {
        f"{model.metadata['targetPrefix']}.{name}": model.operation_model(name)
        for model in models
        for name in model.operation_names
    }


def _without_empty(response: bytes) -> bytes:
    """Remove empty objects, as AWS does and moto does not."""
    content = {name: value for name, value in json.loads(response).items() if value != {}}
    return json.dumps(content).encode().ljust(len(response))  # the Content-Length is already sent
