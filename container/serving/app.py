"""The HTTP server: SageMaker's routes over one model, or over the many of a multi-model endpoint."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from flask import Flask, Response, after_this_request, g, request
from werkzeug.exceptions import HTTPException

from container.codecs.answers import pieces
from container.errors import ClientError, RequestError
from container.serve_settings import ServeSettings
from container.serving.admission import Gate, Overloaded
from container.serving.answering import answer
from container.serving.bodies import discard_body
from container.serving.models import LOG, Model, ModelStore, estimate_memory, open_model
from container.serving.page import Page, describe_to_page
from container.serving.request_log import Metrics, Record, write_line

PLACES = 32  # requests that one process holds at once, those that still arrive or wait included

_BODIES_SHARE = 8  # one part in so many of the memory may hold bodies

_SEND_SECONDS = 10  # for each megabyte of an answer: nobody keeps a place by reading slowly

_BOOT_ERROR = 3  # the exit status of a worker on which gunicorn ends, instead of starting another worker


def load() -> Flask:
    """Create the application, in a gunicorn worker, and load the model beside it; an unusable model ends the server."""
    settings = ServeSettings.read()
    # while one image is computed, the next is decoded and the last encoded
    gate = Gate(settings.slots + 1, PLACES, settings.memory // _BODIES_SHARE)
    open_ = functools.partial(open_model, settings=settings)
    handler = logging.StreamHandler(sys.stdout)
    logging.getLogger("container.requests").addHandler(handler)
    logging.getLogger("container.requests").setLevel(settings.log_level.upper())
    if settings.multi_model:
        return create_app(ModelStore(open_, estimate_memory, settings.model_memory), settings, gate)
    with_one_thread = ThreadPoolExecutor(1)
    model = with_one_thread.submit(open_, settings.model_dir)
    with_one_thread.shutdown(wait=False)
    model.add_done_callback(_end_if_unusable)
    return create_app(model, settings, gate)


def _end_if_unusable(model: Future[Model]) -> None:
    error = model.exception()
    if error is None:
        return
    if isinstance(error, ClientError):
        LOG.error("ClientError: %s", error)
    else:
        LOG.error("the model cannot be loaded", exc_info=error)
    os._exit(_BOOT_ERROR)  # sys.exit would end this thread only


def create_app(models: Future[Model] | ModelStore, settings: ServeSettings, gate: Gate | None = None) -> Flask:
    """Create the application that answers with one model, or with the store of a multi-model endpoint.

    Until the one model is there, whatever is asked is refused with 503.
    """
    gate = gate or Gate(2, PLACES)
    metrics = Metrics()
    app = Flask(__name__)
    app.extensions["gate"] = gate
    app.config["MAX_CONTENT_LENGTH"] = settings.max_body + 1  # Werkzeug cuts a chunked body at its limit, in silence
    app.register_error_handler(Exception, _answer_error)

    @app.before_request
    def begin() -> None:
        g.record = Record(request.method, request.path)

    @app.after_request
    def tell(response: Response) -> Response:
        record, sent = g.record, response.content_length

        def finish() -> None:
            facts = record.finish(response.status_code, sent)
            metrics.add(facts)
            write_line(facts, settings.log_format)

        if request.path != "/ping":  # the platform asks every five seconds
            response.call_on_close(finish)
        return response

    @app.get("/ping")
    def ping() -> Response:
        return Response(status=200)

    @app.get("/execution-parameters")
    def execution_parameters() -> Response:
        return _json(200, _execution_parameters(settings, gate))

    if settings.metrics:

        @app.get("/metrics")
        def show_metrics() -> Response:
            return Response(metrics.render(gate.waiting), mimetype="text/plain")

    if settings.ui and not isinstance(models, ModelStore):
        _add_page(app, models, settings)
    if isinstance(models, ModelStore):
        _add_model_routes(app, models, settings, gate)
    else:
        _add_routes(app, models, settings, gate)
    return app


def _add_routes(app: Flask, model: Future[Model], settings: ServeSettings, gate: Gate) -> None:
    """Add an ordinary endpoint's route."""
    app.extensions["model"] = model

    @app.before_request
    def refuse_until_loaded() -> None:
        if not model.done():
            raise Overloaded("the model is being loaded; try again", 1)

    @app.post("/invocations")
    def invocations() -> Response:
        return _invoke(contextlib.nullcontext(model.result()), settings, gate)


def _add_model_routes(app: Flask, store: ModelStore, settings: ServeSettings, gate: Gate) -> None:
    """Add a multi-model endpoint's routes.

    https://docs.aws.amazon.com/sagemaker/latest/dg/mms-container-apis.html
    """

    @app.get("/models")
    def list_models() -> Response:
        return _json(200, {"models": [_describe(name, model_dir) for name, model_dir in store.names().items()]})

    @app.post("/models")
    def load_model() -> Response:
        wanted = request.get_json(force=True, silent=True)
        if not isinstance(wanted, dict) or not all(isinstance(wanted.get(key), str) for key in ("model_name", "url")):
            raise RequestError(400, 'send JSON such as {"model_name": "name", "url": "/directory/of/the/model"}')
        store.load(wanted["model_name"], Path(wanted["url"]))
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
        return _invoke(store.use(name), settings, gate)


def _invoke(opened: AbstractContextManager[Model], settings: ServeSettings, gate: Gate) -> Response:
    """Answer one image; the request keeps its place until the answer has been sent, and the model until it is made."""
    body = settings.max_body if request.content_length is None else min(request.content_length, settings.max_body)
    gate.take_place(body)
    g.has_place = True

    @after_this_request
    def leave_when_sent(response: Response) -> Response:
        response.call_on_close(lambda: gate.leave_place(body))
        return response

    with opened as model:
        found = answer(request, model, settings, gate, g.record)
    if connection := request.environ.get("gunicorn.socket"):
        connection.settimeout(_SEND_SECONDS)
    headers = {"Content-Length": str(found.length), "Vary": "Accept, Accept-Encoding"}
    if found.is_gzip:
        headers["Content-Encoding"] = "gzip"
    return Response(pieces(found.buffers), headers=headers, mimetype=found.media_type)


def _describe(name: str, model_dir: Path) -> dict[str, str]:
    return {"modelName": name, "modelUrl": str(model_dir)}


def _add_page(app: Flask, model: Future[Model], settings: ServeSettings) -> None:
    """Add the page for people, which is there even before the model is."""
    page = Page()
    app.before_request(lambda: page.answer(request))
    app.after_request(lambda response: page.finish(request, response, g.record))

    @app.get("/ui/model.json")
    def tell_page() -> Response:
        engine, classes = model.result().engine, model.result().classes
        return _json(200, describe_to_page(engine.num_classes, engine.precision, classes, settings))


def _execution_parameters(settings: ServeSettings, gate: Gate) -> dict[str, int | str]:
    """Advise batch transform, which wants concurrency times payload to stay within 100 MB."""
    concurrency = settings.workers * gate.seats
    return {
        "MaxConcurrentTransforms": concurrency,
        "BatchStrategy": "SINGLE_RECORD",
        "MaxPayloadInMB": max(1, min(settings.max_body // 2**20, 100 // concurrency)),
    }


def _answer_error(error: Exception) -> Response:
    """Answer any error with one line of JSON; what was not expected goes to the log with its traceback."""
    stalled = getattr(error, "status", None) == 408
    discard_body(request, 5 if g.get("has_place") and not stalled else 0.5)  # without a place it holds one of /ping's
    if isinstance(error, RequestError):
        response = _json(error.status, {"error": " ".join(error.message.split())})
        if isinstance(error, Overloaded):
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
