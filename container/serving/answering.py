"""One request from headers to buffers: what is asked for, the image, the seat, the engine, the answer's form."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator

import numpy as np
from werkzeug.wrappers import Request

from container.codecs.answers import ENCODERS, Encoder, compress
from container.codecs.images import DecodeError, Header, NotAnImage, TooManyPixels, decode_image, read_header
from container.codecs.probabilities import Buffer
from container.codecs.recordio import RecordTooLong
from container.errors import RequestError
from container.serve_settings import ServeSettings
from container.serving.admission import Gate
from container.serving.bodies import read_body
from container.serving.models import Model
from container.serving.negotiation import choose_media_type, wants_gzip
from container.serving.request_log import Record

CONTENT_TYPES = ("image/jpeg", "image/png", "application/x-image", "image/jpg", "image/pjpeg")
# what clients send that say nothing of the body (S3's and curl's defaults): then the bytes decide
ANY_TYPES = ("", "application/octet-stream", "binary/octet-stream", "application/x-www-form-urlencoded")

_WAY_SECONDS = 2  # of the time that the platform allows, left for the way of the answer
_SMALLER = "scale the image down, or ask for image/png, or for application/x-npy with top_k or dtype"


@dataclasses.dataclass(frozen=True)
class Answer:
    """The buffers that, one after the other, are the answer."""

    media_type: str
    buffers: list[Buffer]
    is_gzip: bool

    @property
    def length(self) -> int:
        """How many bytes it has."""
        return sum(map(len, self.buffers))


def answer(request: Request, model: Model, settings: ServeSettings, gate: Gate, record: Record) -> Answer:
    """Answer one image; whatever can be refused without the engine is, in the order of the statuses' cost."""
    media_type, encoder = _choose_encoder(request, model)
    _check_content_type(request)
    compressed = wants_gzip(request.accept_encodings, encoder.compression)
    with record.phase("read"):
        body = read_body(request, settings.max_body)
    with _refusing_unusable_images():
        height, width = _read_header(request, body, settings).shape(settings.exif_orientation)
    record.facts.update(bytes_in=len(body), height=height, width=width)
    try:
        size = encoder.size(model.engine.num_classes, height, width)
    except RecordTooLong as error:
        raise RequestError(413, f"{error}; {_SMALLER}") from error
    _check_memory(model, encoder, size, height, width, settings)
    if not compressed:
        _check_length(size, settings)
    with contextlib.ExitStack() as seated:
        with record.phase("queue"):
            deadline = record.arrived + settings.timeout - _WAY_SECONDS
            seated.enter_context(gate.seat(height * width, deadline))
        buffers = _compute(body, model, encoder, settings, record)
        if compressed:
            with record.phase("compress"):
                buffers = compress(buffers)
    found = Answer(media_type, buffers, compressed)
    _check_length(found.length, settings)
    return found


def _choose_encoder(request: Request, model: Model) -> tuple[str, Encoder]:
    media_type, options = choose_media_type(request.accept_mimetypes)
    try:
        encoder = ENCODERS[media_type](options, model.classes)
        encoder.size(model.engine.num_classes, 1, 1)  # knows what the model's classes do not allow
    except ValueError as error:
        raise RequestError(406, f"Accept: {media_type}: {error}") from error
    return media_type, encoder


def _check_content_type(request: Request) -> None:
    if request.mimetype not in CONTENT_TYPES + ANY_TYPES:
        remedy = "send the raw bytes of a JPEG or PNG as image/jpeg or image/png"
        raise RequestError(415, f"Content-Type {request.mimetype} is not supported; {remedy}")


def _read_header(request: Request, body: bytes, settings: ServeSettings) -> Header:
    try:
        return read_header(body, settings.max_pixels)
    except NotAnImage as error:
        if request.mimetype not in ANY_TYPES:
            raise
        given = f"Content-Type {request.mimetype} is" if request.mimetype else "no Content-Type is"
        raise RequestError(415, f"{given} supported for a JPEG or PNG only: {error}") from error


def _compute(body: bytes, model: Model, encoder: Encoder, settings: ServeSettings, record: Record) -> list[Buffer]:
    with record.phase("decode"), _refusing_unusable_images():
        image = decode_image(body, settings.max_pixels, orientation=settings.exif_orientation)
    with record.phase("inference"):
        found: np.ndarray = model.engine.mask(image) if encoder.needs == "mask" else model.engine.probabilities(image)
    del image
    with record.phase("encode"):
        return encoder.encode(found)


@contextlib.contextmanager
def _refusing_unusable_images() -> Iterator[None]:
    try:
        yield
    except TooManyPixels as error:
        raise RequestError(413, f"{error}; scale the image down, or raise MAX_PIXELS") from error
    except DecodeError as error:
        raise RequestError(400, str(error)) from error


def _check_memory(
    model: Model, encoder: Encoder, size: int, height: int, width: int, settings: ServeSettings
) -> None:
    """Refuse an image that could only be answered by taking the whole server's memory."""
    needed = model.engine.memory(height * width)
    if encoder.needs == "probabilities":
        needed += 4 * model.engine.num_classes * height * width + size
    if needed > settings.image_memory:
        megabytes = f"about {needed // 2**20} MB, IMAGE_MEMORY_MB allows {settings.image_memory // 2**20}"
        raise RequestError(
            413, f"{width}×{height} pixels need {megabytes}; scale the image down, or take an instance with more memory"
        )


def _check_length(size: int, settings: ServeSettings) -> None:
    if settings.max_response is not None and size > settings.max_response:
        raise RequestError(
            413, f"the answer has {size} bytes, more than MAX_RESPONSE_BYTES={settings.max_response}; {_SMALLER}"
        )
