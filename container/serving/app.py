"""The HTTP routes of a single-model or multi-model endpoint."""

from __future__ import annotations

import concurrent.futures
import functools
import json
import logging
import re
import socket
import sys
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
from container.serving.greenlets import NativeThreadExecutor
from container.serving.health import Health, end_server, end_worker
from container.serving.memory_budget import MemoryBudget
from container.serving.metrics import Metrics
from container.serving.model_info import describe_execution, describe_model, describe_models
from container.serving.model_store import ModelStore, estimate_memory
from container.serving.models import LOG, Model, SingleModel, Source, open_model
from container.serving.page import Page, page_info
from container.serving.requests.bodies import STALL_SECONDS, discard_body, read_body
from container.serving.requests.deadline import RequestDeadline
from container.serving.requests.errors import ClientDisconnectedError, ServiceUnavailableError
from container.serving.requests.inference import EncodedResponse, ServingContext, answer
from container.serving.requests.log import Record, clean, write_line
from container.serving.requests.queue import RequestQueue
from container.serving.settings import ServeSettings
from container.serving.startup import create_memory_budget, settle

_THREADS = 64  # at most: one for each request that is worked on, and one that loads a model

_LOAD_SECONDS = 240  # for loading a model; the platform has no shorter limit of its own

_LOAD_REQUEST_BYTES = 2**18  # of the body that asks for it

_SEND_SECONDS = 10  # for each megabyte of an answer: nobody keeps its memory by reading slowly

_DISCARD_SECONDS = 5  # for reading what is left of the body of a refused request

_ECHOED = ("X-Amzn-SageMaker-Inference-Id", "X-Amzn-SageMaker-Custom-Attributes")


def load() -> Flask:
    """Create the application in a gunicorn worker and load the model on a thread; an unusable model ends the server.

    One of several workers returns when its model is ready: gunicorn has it accept connections only then.
    """
    settings = ServeSettings.read()
    sys.setswitchinterval(0.001)
    executor = NativeThreadExecutor(_THREADS)
    handler = logging.StreamHandler(sys.stdout)
    logging.getLogger("container.requests").addHandler(handler)
    logging.getLogger("container.requests").setLevel(settings.log_level.upper())
    ledger = create_memory_budget(settings)
    open_ = functools.partial(open_model, settings=settings)
    if settings.multi_model:
        store = ModelStore(open_, estimate_memory, ledger, executor, settings.model_memory)
        return create_app(store, settings, health=Health(end_server), executor=executor, ledger=ledger)
    model = executor.submit(open_, settings.model_dir)
    app = create_app(model, settings, health=Health(end_worker), executor=executor, ledger=ledger)
    model.add_done_callback(lambda done: settle(done, ledger, settings))
    if settings.workers > 1:
        concurrent.futures.wait([model])
    return app


def create_app(
    models: Future[Model] | ModelStore,
    settings: ServeSettings,
    gate: RequestQueue | None = None,
    health: Health | None = None,
    *,
    executor: Executor | None = None,
    ledger: MemoryBudget | None = None,
) -> Flask:
    """Create the application that answers with one model, or with the store of a multi-model endpoint.

    Until the one model is there, whatever is asked is refused with 503; so is /ping once the engine has failed.
    """
    gate = gate or RequestQueue(settings.seats, settings.slots)
    ledger = ledger or MemoryBudget(image_bound=settings.image_memory)
    health = health or Health(lambda: None)
    native = InferenceExecutor(executor or ThreadPoolExecutor(gate.seats + 1), settings.slots)
    office = ServingContext(settings, gate, ledger, native, health)
    metrics = Metrics(gate, ledger)
    app = Flask(__name__)
    app.extensions.update(gate=gate, metrics=metrics)
    app.config["MAX_CONTENT_LENGTH"] = settings.max_body + 1  # Werkzeug cuts a chunked body at its limit, in silence
    app.register_error_handler(Exception, _error_response)
    _follow_requests(app, settings, metrics)

    @app.get("/ping")
    def ping() -> Response:
        if not health.is_good:
            raise ServiceUnavailableError("the engine has failed and is being started anew; try again", 1)
        return Response(status=200)

    @app.get("/execution-parameters")
    def execution_parameters() -> Response:
        return _json(200, describe_execution(settings, gate.seats))

    if settings.metrics:

        @app.get("/metrics")
        def show_metrics() -> Response:
            return Response(metrics.render(), mimetype="text/plain")

    if settings.ui and not isinstance(models, ModelStore):
        _add_page(app, models, settings)
    if isinstance(models, ModelStore):
        _add_model_routes(app, models, office)
    else:
        _add_routes(app, models, office, metrics)
    return app


def _follow_requests(app: Flask, settings: ServeSettings, metrics: Metrics) -> None:
    """Give every request its record and its clock, and tell of it in log and metrics once its answer has been sent."""

    @app.before_request
    def begin() -> None:
        g.record = Record(request.method, request.path)
        g.clock = RequestDeadline(settings.timeout, _connection(), settings.queue_seconds)
        if (connection := _connection()) is not None:
            connection.settimeout(STALL_SECONDS)
        for name in _ECHOED:
            if name in request.headers:
                g.record.facts[name.removeprefix("X-Amzn-SageMaker-").lower()] = clean(request.headers[name])

    @app.after_request
    def tell(response: Response) -> Response:
        record, sent = g.record, response.content_length

        def finish() -> None:
            facts = record.finish(record.facts.pop("ended", response.status_code), sent)
            metrics.add(facts)
            write_line(facts, settings.log_format)

        for name in _ECHOED:
            if name in request.headers:
                response.headers[name] = clean(request.headers[name]).encode("ascii", "backslashreplace").decode()
        if request.path != "/ping":  # the platform asks every five seconds
            response.call_on_close(finish)
        return response


def _connection() -> socket.socket | None:
    """Return the request's connection; there is none where no gunicorn is."""
    connection: socket.socket | None = request.environ.get("gunicorn.socket")
    return connection


def _add_routes(app: Flask, model: Future[Model], office: ServingContext, metrics: Metrics) -> None:
    """Add an ordinary endpoint's route."""
    app.extensions["model"] = model

    def describe(done: Future[Model]) -> None:
        if not done.exception():
            metrics.describe(office.settings.model_dir.name, office.settings.engine, done.result().card)

    model.add_done_callback(describe)

    @app.before_request
    def refuse_until_loaded() -> None:
        if not model.done():
            raise ServiceUnavailableError("the model is being loaded; try again", 1)

    @app.post("/invocations")
    def invocations() -> Response:
        return _invoke(SingleModel(model.result(), office.ledger), office)

    @app.get("/")
    def about() -> Response:
        return _json_response(describe_model(model.result().card, office.settings))


def _add_model_routes(app: Flask, store: ModelStore, office: ServingContext) -> None:
    """Add a multi-model endpoint's routes.

    https://docs.aws.amazon.com/sagemaker/latest/dg/mms-container-apis.html
    """

    @app.get("/models")
    def list_models() -> Response:
        return _json(200, {"models": [_describe(name, model_dir) for name, model_dir in store.names().items()]})

    @app.post("/models")
    def load_model() -> Response:
        clock = RequestDeadline(_LOAD_SECONDS, _connection())
        wanted = _read_load_request(clock)
        store.load(wanted["model_name"], Path(wanted["url"]), clock)
        return _json(200, _describe(wanted["model_name"], Path(wanted["url"])))

    @app.get("/models/<name>")
    def show_model(name: str) -> Response:
        names = store.names()
        if name not in names:
            raise RequestError(404, f"the model {name} is not loaded")
        return _json(200, _describe(name, names[name]))

    @app.delete("/models/<name>")
    def unload_model(name: str) -> Response:
        store.unload(name)
        return _json(200, {})

    @app.post("/models/<name>/invoke")
    def invoke_model(name: str) -> Response:
        return _invoke(store.source(name), office)

    @app.get("/")
    def about() -> Response:
        return _json_response(describe_models(store.names(), office.settings))


def _invoke(source: Source, office: ServingContext) -> Response:
    """Answer one image; what it holds is given back when the answer has been sent, or nobody can be sent one."""
    account = office.ledger.account()
    g.end = account.close
    found = answer(request, source, office, account, g.clock, g.record)
    headers = {"Content-Length": str(found.length), "Vary": "Accept, Accept-Encoding"}
    if found.is_gzip:
        headers["Content-Encoding"] = "gzip"
    sending = _sending(found, _connection(), g.clock, g.record)
    response = Response(sending, headers=headers, mimetype=found.media_type)
    response.call_on_close(account.close)
    del g.end
    return response


def _sending(
    found: EncodedResponse, connection: socket.socket | None, clock: RequestDeadline, record: Record
) -> Iterator[bytes]:
    """Give the answer piece by piece, as long as it is taken fast enough."""
    with record.phase("send"):
        record.facts["ended"] = 499  # until all has been taken
        for piece in pieces(found.buffers):
            if connection is not None:
                connection.settimeout(max(0.01, min(_SEND_SECONDS, clock.end - time.monotonic())))
            yield piece
        del record.facts["ended"]


def _json_response(content: dict[str, Any]) -> Response:
    if request.accept_mimetypes and not request.accept_mimetypes.accept_json:
        raise RequestError(406, f"Accept: {request.accept_mimetypes.to_header()} is not available; application/json is")
    return _json(200, content)


def _add_page(app: Flask, model: Future[Model], settings: ServeSettings) -> None:
    """Add the page for people, which is there even before the model is."""
    page = Page()
    app.before_request(lambda: page.answer(request))
    app.after_request(lambda response: page.finish(request, response, g.record))

    @app.get("/ui/model.json")
    def show_page_info() -> Response:
        card = model.result().card
        return _json(200, page_info(card.num_classes, card.precision, card.classes, settings))


def _read_load_request(clock: RequestDeadline) -> dict[str, Any]:
    """Read the body of `POST /models`: `model_name` and `url`; raises RequestError."""
    form = 'send JSON such as {"model_name": "name", "url": "/directory/of/the/model"}'
    try:
        body = read_body(request, _LOAD_REQUEST_BYTES, lambda size: None, clock)
        wanted = parse_object(body, "the body")
    except ClientError as error:
        raise RequestError(400, f"{error}; {form}") from error
    except RequestError as error:
        raise RequestError(error.status, f"{re.split('; |: send', error.message)[0]}; {form}") from error
    if not all(isinstance(wanted.get(key), str) for key in ("model_name", "url")):
        raise RequestError(400, form)
    return wanted


def _describe(name: str, model_dir: Path) -> dict[str, str]:
    return {"modelName": name, "modelUrl": str(model_dir)}


def _error_response(error: Exception) -> Response:
    """Answer any error with one line of JSON; what was not expected goes to the log with its traceback."""
    has_stalled = getattr(error, "status", None) == 408
    if end := g.pop("end", None):
        end()
    if not isinstance(error, ClientDisconnectedError) and not has_stalled:
        discard_body(request, _DISCARD_SECONDS)
    if isinstance(error, RequestError):
        response = _json(error.status, {"error": " ".join(error.message.split())})
        if isinstance(error, ServiceUnavailableError):
            response.headers["Retry-After"] = str(error.retry_after)
        return response
    if isinstance(error, HTTPException):
        response = _json(error.code or 500, {"error": error.description or error.name})
        response.headers.extend([header for header in error.get_headers() if header[0] == "Allow"])
        return response
    LOG.error("a request failed", exc_info=error)
    return _json(500, {"error": "internal error; the endpoint's log has the details"})


def _json(status: int, content: Any) -> Response:
    return Response(json.dumps(content, ensure_ascii=False) + "\n", status, mimetype="application/json")
