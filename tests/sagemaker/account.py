"""An AWS account that is not there: moto answers, and every request is held to AWS's own service model.

Programs reach it through `AWS_ENDPOINT_URL`, so that what is tested is the program that a user runs. An endpoint's
invocations go to a container of the image, as SageMaker's front door sends them.
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

SERVICES = ("sagemaker", "application-autoscaling")  # whose requests are kept and checked
INVOCATION = re.compile(r"/endpoints/[^/]+/invocations")
TARGET_MODEL = "X-Amzn-Sagemaker-Target-Model"

Start = Callable[..., Any]


class Reservation:
    """The requests that came, and what is wrong with them; `server` is the URL at which a container serves."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.server = ""
        self.models: dict[str, str] = {}  # of a multi-model endpoint: a directory per TargetModel
        self._asked: list[tuple[str, dict[str, Any]]] = []
        self.faults: list[str] = []
        self._moto = DomainDispatcherApplication(create_backend_app)

    def asked(self, operation: str) -> list[dict[str, Any]]:
        """Return the requests for an operation, in their order."""
        return [request for name, request in self._asked if name == operation]

    def asked_once(self, operation: str) -> dict[str, Any]:
        """Return the only request for an operation."""
        (request,) = self.asked(operation)
        return request

    def environment(self) -> dict[str, str]:
        """Return the variables with which a program finds this account, and nothing beyond it."""
        return {**os.environ, "AWS_ENDPOINT_URL": self.url, "SAGEMAKER_VALIDATE_ROLE": "false"}

    def __call__(self, environ: dict[str, Any], start: Start) -> Iterable[bytes]:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        if INVOCATION.fullmatch(environ["PATH_INFO"]) and self.server:
            return self._invoke(environ, body, start)
        target = environ.get("HTTP_X_AMZ_TARGET", "")
        if found := operations().get(target):
            request = json.loads(body)
            self._asked.append((found.name, request))
            self.faults += [f"{found.name}: {fault}" for fault in find_errors(request, found.input_shape)]
        environ["wsgi.input"] = io.BytesIO(body)
        answer = self._moto(environ, start)
        return [_without_empty(b"".join(answer))] if target.startswith("SageMaker.Describe") else answer

    def _invoke(self, environ: dict[str, Any], body: bytes, start: Start) -> list[bytes]:
        path = "/invocations"
        headers = {"Content-Type": environ.get("CONTENT_TYPE", ""), "Accept": environ.get("HTTP_ACCEPT", "")}
        if model := environ.get("HTTP_" + TARGET_MODEL.upper().replace("-", "_")):
            if url := self.models.pop(model, None):
                content = {"model_name": "m-" + model.replace("/", "-"), "url": url}
                requests.post(f"{self.server}/models", json=content, timeout=60).raise_for_status()
            path = f"/models/m-{model.replace('/', '-')}/invoke"
        answer = requests.post(self.server + path, body, headers=headers, timeout=60)
        start(f"{answer.status_code} {answer.reason}", [("Content-Type", answer.headers["Content-Type"])])
        return [answer.content]


@contextlib.contextmanager
def opened() -> Iterator[Reservation]:
    """Open an account at a free port."""
    account = Reservation("")
    server = make_server("127.0.0.1", 0, lambda *arguments: account(*arguments), threaded=True, request_handler=_Silent)
    account.url = f"http://127.0.0.1:{server.port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        requests.post(f"{account.url}/moto-api/reset", timeout=60).raise_for_status()
        yield account
    finally:
        server.shutdown()
        thread.join()


class _Silent(WSGIRequestHandler):
    def log_request(self, *arguments: Any) -> None:
        pass


@functools.cache
def operations() -> dict[str, OperationModel]:
    """Return the operations of `SERVICES` by the header that asks for them."""
    session = botocore.session.get_session()
    models = [session.get_service_model(service) for service in SERVICES]
    return {
        f"{model.metadata['targetPrefix']}.{name}": model.operation_model(name)
        for model in models
        for name in model.operation_names
    }


def _without_empty(answer: bytes) -> bytes:
    """Leave out objects that are empty, as AWS does and moto does not."""
    content = {name: value for name, value in json.loads(answer).items() if value != {}}
    return json.dumps(content).encode().ljust(len(answer))  # its length is announced already
