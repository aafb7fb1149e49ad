"""The HTTP routes of a single-model or multi-model endpoint."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from flask import Flask, Response, g, request
from werkzeug.exceptions import HTTPException

from container.artifact.json_files import parse_object
from container.codecs.response_formats import pieces
from container.errors import ClientError, RequestError
from container.serving.executor import InferenceExecutor
from container.serving.health import Health
from container.serving.memory_budget import MemoryBudget, Reservation
from container.serving.metrics import Metrics
from container.serving.model_info import describe_execution, describe_model, describe_models
from container.serving.model_store import ModelStore
from container.serving.models import LOG, Model, ModelSource, single_model
from container.serving.page import Page, page_info
from container.serving.requests import errors
from container.serving.requests.bodies import STALL_SECONDS, discard_body, read_body
from container.serving.requests.deadline import RequestDeadline
from container.serving.requests.inference import EncodedResponse, InferenceRequest, ServingContext
from container.serving.requests.log import RequestRecord, clean, write_line
from container.serving.requests.queue import RequestQueue
from container.serving.settings import ServeSettings

_LOAD_SECONDS = 240  # to load a model; SageMaker AI has no shorter limit
_LOAD_REQUEST_BYTES = 2**18  # of the body of POST /models
_LOAD_REQUEST_FORMAT = 'Send JSON such as {"model_name": "name", "url": "/directory/of/the/model"}.'

_SEND_SECONDS = 10  # per megabyte of the response, so that a slow client does not occupy memory

_DISCARD_SECONDS = 5  # to read the rest of the body of a rejected request

_ECHOED_HEADERS = ("X-Amzn-SageMaker-Inference-Id", "X-Amzn-SageMaker-Custom-Attributes")


def create_app(
    models: Future[Model] | ModelStore,
    settings: ServeSettings,
    queue: RequestQueue | None = None,
    health: Health | None = None,
    *,
    executor: Executor | None = None,
    budget: MemoryBudget | None = None,
) -> Flask:
    """Create the application that serves one model, or the models of a multi-model endpoint.

    Until the single model is loaded, all routes return 503. After repeated inference failures, /ping returns 503.
    """
    queue = queue or RequestQueue(settings.max_concurrent_requests, settings.max_concurrent_inferences)
    budget = budget or MemoryBudget(image_memory=settings.image_memory)
    health = health or Health(lambda: None)
    threads = executor or ThreadPoolExecutor(queue.max_concurrent_requests + 1)
    inference_executor = InferenceExecutor(threads, settings.max_concurrent_inferences)
    server = ServingContext(settings, queue, budget, inference_executor, health)
    metrics = Metrics(queue, budget, settings.metrics_dir)
    app = Flask(__name__)
    app.extensions.update(queue=queue, metrics=metrics)
    app.config["MAX_CONTENT_LENGTH"] = settings.max_body + 1  # Werkzeug truncates a chunked body silently at its limit
    app.register_error_handler(Exception, _error_response)
    _add_request_log(app, settings, metrics)

    @app.get("/ping")
    def ping() -> Response:
        if not health.is_healthy:
            raise errors.engine_failed()
        return Response(status=200)

    @app.get("/execution-parameters")
    def execution_parameters() -> Response:
        return _json(200, describe_execution(settings, queue.max_concurrent_requests))

    if settings.metrics:

        @app.get("/metrics")
        def show_metrics() -> Response:
            return Response(metrics.render(), mimetype="text/plain")

    if isinstance(models, ModelStore):
        _add_multi_model_routes(app, models, server)
    else:
        if settings.ui:
            _add_page(app, models, settings)
        _add_single_model_routes(app, models, server, metrics)
    return app


def _add_request_log(app: Flask, settings: ServeSettings, metrics: Metrics) -> None:
    """Create the record and the deadline of each request, and write its log line and metrics after the response."""

    @app.before_request
    def start_request() -> None:
        g.record = RequestRecord(request.method, request.path)
        g.deadline = RequestDeadline(settings.timeout, _connection(), settings.queue_seconds)
        if (connection := _connection()) is not None:
            connection.settimeout(STALL_SECONDS)
        for name in _ECHOED_HEADERS:
            if name in request.headers:
                g.record.fields[name.removeprefix("X-Amzn-SageMaker-").lower()] = clean(request.headers[name])

    @app.after_request
    def add_headers_and_log(response: Response) -> Response:
        record, length = g.record, response.content_length

        def finish_request() -> None:
            fields = record.finish(record.fields.pop("ended", response.status_code), length)
            metrics.add(fields)
            write_line(fields, settings.log_format)

        for name in _ECHOED_HEADERS:
            if name in request.headers:
                response.headers[name] = clean(request.headers[name]).encode("ascii", "backslashreplace").decode()
        if request.path != "/ping":  # SageMaker AI sends it every 5 s
            response.call_on_close(finish_request)
        return response


def _connection() -> socket.socket | None:
    """Return the connection of the request, or None without gunicorn."""
    connection: socket.socket | None = request.environ.get("gunicorn.socket")
    return connection


def _add_single_model_routes(app: Flask, model: Future[Model], server: ServingContext, metrics: Metrics) -> None:
    app.extensions["model"] = model

    def add_model_metrics(done: Future[Model]) -> None:
        if not done.exception():
            metrics.set_model(server.settings.model_dir.name, server.settings.engine, done.result().info)

    model.add_done_callback(add_model_metrics)

    @app.before_request
    def reject_until_loaded() -> None:
        if not model.done():
            raise errors.model_loading()

    @app.post("/invocations")
    def invocations() -> Response:
        return _invoke(single_model(model.result()), server)

    @app.get("/")
    def show_model() -> Response:
        return _json_response(describe_model(model.result().info, server.settings))


def _add_multi_model_routes(app: Flask, store: ModelStore, server: ServingContext) -> None:
    """Add the routes of https://docs.aws.amazon.com/sagemaker/latest/dg/mms-container-apis.html."""

    @app.get("/models")
    def list_models() -> Response:
        return _json(200, {"models": [_describe(name, path) for name, path in store.directories().items()]})

    @app.post("/models")
    def load_model() -> Response:
        deadline = RequestDeadline(_LOAD_SECONDS, _connection())
        name, model_dir = _read_load_request(deadline)
        store.load(name, model_dir, deadline)
        return _json(200, _describe(name, model_dir))

    @app.get("/models/<name>")
    def show_model(name: str) -> Response:
        directories = store.directories()
        if name not in directories:
            raise RequestError(404, f"the model {name} is not loaded")
        return _json(200, _describe(name, directories[name]))

    @app.delete("/models/<name>")
    def unload_model(name: str) -> Response:
        store.unload(name)
        return _json(200, {})

    @app.post("/models/<name>/invoke")
    def invoke_model(name: str) -> Response:
        return _invoke(store.source(name), server)

    @app.get("/")
    def show_models() -> Response:
        return _json_response(describe_models(store.directories(), server.settings))


def _invoke(model: ModelSource, server: ServingContext) -> Response:
    """Process an inference request; its memory is released after the response is sent or the request fails."""
    reservation = Reservation(server.budget)
    g.release_memory = reservation.close  # if it fails, see _error_response
    encoded = InferenceRequest(request, model, server, g.deadline, reservation, g.record).process()
    headers = {"Content-Length": str(encoded.length), "Vary": "Accept, Accept-Encoding"}
    if encoded.is_gzip:
        headers["Content-Encoding"] = "gzip"
    chunks = _send(encoded, _connection(), g.deadline, g.record)
    response = Response(chunks, headers=headers, mimetype=encoded.media_type)
    response.call_on_close(reservation.close)
    del g.release_memory
    return response


def _send(
    response: EncodedResponse, connection: socket.socket | None, deadline: RequestDeadline, record: RequestRecord
) -> Iterator[bytes]:
    """Yield the response in chunks, each with a time limit for the client to read it."""
    with record.phase("send"):
        record.fields["ended"] = 499  # until the client has read all chunks
        for chunk in pieces(response.buffers):
            if connection is not None:
                connection.settimeout(max(0.01, min(_SEND_SECONDS, deadline.send_by - time.monotonic())))
            yield chunk
        del record.fields["ended"]


def _add_page(app: Flask, model: Future[Model], settings: ServeSettings) -> None:
    """Add the web page, which is available before the model is loaded."""
    page = Page()
    app.before_request(lambda: page.serve_file(request))
    app.after_request(lambda response: page.add_headers(request, response, g.record))

    @app.get("/ui/model.json")
    def show_page_info() -> Response:
        return _json(200, page_info(model.result().info, settings))


def _read_load_request(deadline: RequestDeadline) -> tuple[str, Path]:
    """Return the name and the directory of `POST /models`; raises RequestError."""
    try:
        body = read_body(request, _LOAD_REQUEST_BYTES, lambda size: None, deadline, fix=_LOAD_REQUEST_FORMAT)
        content = parse_object(body, "the body")
    except ClientError as error:
        raise RequestError(400, f"{error} {_LOAD_REQUEST_FORMAT}") from error
    name, url = content.get("model_name"), content.get("url")
    if not isinstance(name, str) or not isinstance(url, str):
        raise RequestError(400, f"The body must contain the strings model_name and url. {_LOAD_REQUEST_FORMAT}")
    return name, Path(url)


def _describe(name: str, model_dir: Path) -> dict[str, str]:
    return {"modelName": name, "modelUrl": str(model_dir)}


def _error_response(error: Exception) -> Response:
    """Return one line of JSON for any error; log unexpected errors with a traceback."""
    is_timeout = getattr(error, "status", None) == 408
    if release_memory := g.pop("release_memory", None):
        release_memory()
    if not isinstance(error, errors.ClientDisconnectedError) and not is_timeout:
        discard_body(request, _DISCARD_SECONDS)
    if isinstance(error, RequestError):
        response = _json(error.status, {"error": " ".join(error.message.split())})
        if isinstance(error, errors.ServiceUnavailableError):
            response.headers["Retry-After"] = str(error.retry_after)
        return response
    if isinstance(error, HTTPException):
        response = _json(error.code or 500, {"error": error.description or error.name})
        response.headers.extend([header for header in error.get_headers() if header[0] == "Allow"])
        return response
    LOG.error("a request failed", exc_info=error)
    return _json(500, {"error": "internal error; the endpoint's log has the details"})


def _json_response(content: dict[str, Any]) -> Response:
    if request.accept_mimetypes and not request.accept_mimetypes.accept_json:
        raise RequestError(406, f"Accept: {request.accept_mimetypes.to_header()} is not available; application/json is")
    return _json(200, content)


def _json(status: int, content: Any) -> Response:
    return Response(json.dumps(content, ensure_ascii=False) + "\n", status, mimetype="application/json")
