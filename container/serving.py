"""The HTTP server: SageMaker's routes over one engine."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import threading
import time

import numpy as np
from flask import Flask, Request, Response, after_this_request, request
from werkzeug.datastructures import MIMEAccept
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from container.codecs.images import DecodeError, TooManyPixels, decode_image
from container.codecs.masks import ENCODERS
from container.codecs.recordio import RecordTooLong
from container.engines.protocol import Engine
from container.environment import ServeSettings
from container.errors import ClientError, RequestError

LOG = logging.getLogger("gunicorn.error")  # the server's own log

SLOTS = 8  # requests that one process holds at once: one is being answered, the others wait for the engine
CONTENT_TYPES = ("image/jpeg", "image/png", "application/x-image")

_RETRY_AFTER_SECONDS = 2
_DISCARD_SECONDS = 5
_DISCARD_BYTES = 2**27  # more than the platform ever sends
_BOOT_ERROR = 3  # the exit status of a worker on which gunicorn ends, instead of starting another worker


def load() -> Flask:
    """Load and warm the model, in a gunicorn worker before it accepts; an unusable model ends the server."""
    settings = ServeSettings.read()
    try:
        from container.engines.mxnet import MXNetEngine

        engine = MXNetEngine(settings.model_dir)
    except ClientError as error:
        LOG.error("ClientError: %s", error)
        sys.exit(_BOOT_ERROR)
    engine.warm()
    return create_app(engine, settings)


def create_app(engine: Engine, settings: ServeSettings) -> Flask:
    """Create the application that answers with `engine`."""
    app = Flask(__name__)
    app.config["MAX_CONTENT_LENGTH"] = settings.max_body + 1  # Werkzeug cuts a chunked body at its limit, in silence
    slots = threading.BoundedSemaphore(SLOTS)
    app.register_error_handler(Exception, _answer_error)

    @app.get("/ping")
    def ping() -> Response:
        return Response(status=200)

    @app.get("/execution-parameters")
    def execution_parameters() -> Response:
        return _json(200, _execution_parameters(settings))

    @app.post("/invocations")
    def invocations() -> Response:
        media_type = choose_media_type(request.accept_mimetypes)
        _check_content_type(request)
        _take(slots)
        image = _decode(_read_body(request, settings), settings)
        encoder = ENCODERS[media_type]
        answer = engine.mask(image) if encoder.needs == "mask" else engine.probabilities(image)
        try:
            return Response(encoder.encode(answer), mimetype=media_type)
        except RecordTooLong as error:
            raise RequestError(413, f"{error}; scale the image down, or ask for image/png") from error

    return app


def choose_media_type(accept: MIMEAccept) -> str:
    """Return the media type that the client likes best; PNG when it does not care.

    The most specific range that covers a type decides on its quality; parameters are passed over. Raises
    RequestError 406 when nothing that is offered is wanted.
    """
    qualities: dict[str, float] = {}
    for value, quality in accept:
        qualities.setdefault(value.partition(";")[0].strip().lower(), quality)
    ranges = list(qualities)
    ranked = []
    for media_type in ENCODERS:
        covering = (media_type, media_type.partition("/")[0] + "/*", "*/*")
        found = next((entry for entry in covering if entry in qualities), None)
        if found and qualities[found] > 0:
            ranked.append((qualities[found], -covering.index(found), -ranges.index(found), media_type))
    if ranked:
        return max(ranked, key=lambda rank: rank[:3])[3]
    if qualities:
        raise RequestError(406, f"Accept: {accept.to_header()} is not available; ask for one of {', '.join(ENCODERS)}")
    return "image/png"


def _check_content_type(request: Request) -> None:
    if request.mimetype not in CONTENT_TYPES:
        given = f"Content-Type {request.mimetype} is" if request.mimetype else "a request without Content-Type is"
        raise RequestError(415, f"{given} not supported; send one of {', '.join(CONTENT_TYPES)}")


def _take(slots: threading.BoundedSemaphore) -> None:
    """Take a slot until the answer has been sent, or refuse with 503: no request may hold the threads of /ping."""
    if not slots.acquire(blocking=False):
        raise RequestError(503, f"{SLOTS} requests are waiting already; try again later or add instances")

    @after_this_request
    def release_when_sent(response: Response) -> Response:
        response.call_on_close(slots.release)
        return response


def _read_body(request: Request, settings: ServeSettings) -> bytes:
    limit = settings.max_body
    try:
        body = request.get_data(cache=False)
        if len(body) > limit:
            raise RequestEntityTooLarge
    except RequestEntityTooLarge as error:
        advice = "compress or scale the image, or raise MAX_CONTENT_LENGTH"
        raise RequestError(413, f"the body is larger than {limit} bytes; {advice}") from error
    if not body:
        raise RequestError(400, "the body is empty: send the bytes of a JPEG or PNG image")
    return body


def _decode(body: bytes, settings: ServeSettings) -> np.ndarray:
    try:
        return decode_image(body, settings.max_pixels)
    except TooManyPixels as error:
        raise RequestError(413, f"{error}; scale the image down, or raise MAX_PIXELS") from error
    except DecodeError as error:
        raise RequestError(400, str(error)) from error


def _execution_parameters(settings: ServeSettings) -> dict[str, int | str]:
    """Advise batch transform, which wants concurrency times payload to stay within 100 MB."""
    return {
        "MaxConcurrentTransforms": settings.workers,
        "BatchStrategy": "SINGLE_RECORD",
        "MaxPayloadInMB": max(1, min(settings.max_body // 2**20, 100 // settings.workers)),
    }


def _answer_error(error: Exception) -> Response:
    """Answer any error with one line of JSON; what was not expected goes to the log with its traceback."""
    _discard_body(request)
    if isinstance(error, RequestError):
        response = _json(error.status, {"error": " ".join(error.message.split())})
        if error.status == 503:
            response.headers["Retry-After"] = str(_RETRY_AFTER_SECONDS)
        return response
    if isinstance(error, HTTPException):
        response = _json(error.code or 500, {"error": error.description or error.name})
        response.headers.extend([header for header in error.get_headers() if header[0] == "Allow"])
        return response
    LOG.error("a request failed", exc_info=error)
    return _json(500, {"error": "internal error; the endpoint's log has the details"})


def _discard_body(request: Request) -> None:
    """Read what is left of the body: to a client that is still sending, a refusal would be a broken connection."""
    body = request.environ["wsgi.input"]
    if connection := request.environ.get("gunicorn.socket"):
        connection.settimeout(_DISCARD_SECONDS)
    deadline = time.monotonic() + _DISCARD_SECONDS
    left = _DISCARD_BYTES
    with contextlib.suppress(OSError):  # who stalls gets the answer as things are
        while left > 0 and time.monotonic() < deadline and (data := body.read(2**16)):
            left -= len(data)


def _json(status: int, content: dict[str, str] | dict[str, int | str]) -> Response:
    return Response(json.dumps(content, ensure_ascii=False) + "\n", status, mimetype="application/json")
