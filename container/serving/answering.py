"""One request from headers to buffers: what is asked for, the images, the seat, the engine, the answer's form."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator

from werkzeug.wrappers import Request

from container.arrays import Array
from container.codecs.answers import ENCODERS, Encoder, compress
from container.codecs.images import DecodeError, Header, NotAnImage, TooManyPixels, decode_image, read_header
from container.codecs.probabilities import Buffer
from container.codecs.recordio import RecordTooLong
from container.errors import RequestError
from container.serve_settings import ServeSettings
from container.serving import instances
from container.serving.admission import Gate
from container.serving.bodies import read_body
from container.serving.encodings import is_compressed, unpack_gzip
from container.serving.health import Health
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


@dataclasses.dataclass(frozen=True)
class _Image:
    """An image that can be answered, with `size` bytes (0: only the answer can say)."""

    body: bytes
    pixels: int
    size: int


def answer(
    request: Request, model: Model, settings: ServeSettings, gate: Gate, health: Health, record: Record
) -> Answer:
    """Answer one image, or several in turn; what can be refused without the engine is, in the order of statuses' cost.

    What is wrong with one of several images refuses them all.
    """
    several = request.mimetype == instances.CONTENT_TYPE
    media_type, encoder = _choose_encoder(request, model, instances.CONTENT_TYPE if several else "image/png")
    _check_content_type(request)
    packed = is_compressed(request)
    compressed = wants_gzip(request.accept_encodings, encoder.compression)
    with record.phase("read"):
        body = read_body(request, settings.max_body)
        if packed:
            body = unpack_gzip(body, settings.max_body)
    record.facts.update(bytes_in=len(body))
    bodies = instances.read_instances(body) if several else [body]
    del body
    instances.check_count(media_type, len(bodies))
    naming = instances.naming if several else contextlib.nullcontext
    images: list[_Image] = []
    for number, each in enumerate(bodies):
        with naming(number):
            images.append(_check_image(request, each, model, encoder, settings, record))
    _check_together(images, compressed, settings)
    if several:
        record.facts.update(images=len(images))
    answers: list[list[Buffer]] = []
    with contextlib.ExitStack() as seated:
        with record.phase("queue"):
            deadline = record.arrived + settings.timeout - _WAY_SECONDS
            seated.enter_context(gate.seat(sum(image.pixels for image in images), deadline))
        for number, image in enumerate(images):
            with naming(number):
                answers.append(_compute(image.body, model, encoder, settings, health, record))
        buffers = instances.join_answers(media_type, answers) if several else answers[0]
        if compressed:
            with record.phase("compress"):
                buffers = compress(buffers)
    found = Answer(media_type, buffers, compressed)
    _check_length(found.length, settings)
    return found


def _check_image(
    request: Request, body: bytes, model: Model, encoder: Encoder, settings: ServeSettings, record: Record
) -> _Image:
    """Refuse an image that cannot be answered, by its header."""
    with _refusing_unusable_images():
        height, width = _read_header(request, body, settings).shape(settings.exif_orientation)
    record.facts.update(height=height, width=width)
    try:
        size = encoder.size(model.engine.num_classes, height, width)
    except RecordTooLong as error:
        raise RequestError(413, f"{error}; {_SMALLER}") from error
    _check_memory(model, encoder, size, height, width, settings)
    return _Image(body, height * width, size)


def _check_together(images: list[_Image], compressed: bool, settings: ServeSettings) -> None:
    """Refuse images that are too large together."""
    pixels = sum(image.pixels for image in images)
    if pixels > settings.max_pixels:
        remedy = "send them in several requests, or raise MAX_PIXELS"
        raise RequestError(413, f"the images have {pixels} pixels, more than {settings.max_pixels}; {remedy}")
    if not compressed:
        _check_length(sum(image.size for image in images), settings)


def _choose_encoder(request: Request, model: Model, default: str) -> tuple[str, Encoder]:
    media_type, options = choose_media_type(request.accept_mimetypes, default)
    try:
        encoder = ENCODERS[media_type](options, model.classes)
        encoder.size(model.engine.num_classes, 1, 1)  # knows what the model's classes do not allow
    except ValueError as error:
        raise RequestError(406, f"Accept: {media_type}: {error}") from error
    return media_type, encoder


def _check_content_type(request: Request) -> None:
    if request.mimetype not in (*CONTENT_TYPES, *ANY_TYPES, instances.CONTENT_TYPE):
        remedy = "send the raw bytes of a JPEG or PNG as image/jpeg or image/png, or several in application/json"
        raise RequestError(415, f"Content-Type {request.mimetype} is not supported; {remedy}")


def _read_header(request: Request, body: bytes, settings: ServeSettings) -> Header:
    try:
        return read_header(body, settings.max_pixels)
    except NotAnImage as error:
        if request.mimetype not in ANY_TYPES:
            raise
        given = f"Content-Type {request.mimetype} is" if request.mimetype else "no Content-Type is"
        raise RequestError(415, f"{given} supported for a JPEG or PNG only: {error}") from error


def _compute(
    body: bytes, model: Model, encoder: Encoder, settings: ServeSettings, health: Health, record: Record
) -> list[Buffer]:
    with record.phase("decode"), _refusing_unusable_images():
        image = decode_image(body, settings.max_pixels, orientation=settings.exif_orientation)
    with record.phase("inference"), health.watching():
        found: Array = model.engine.mask(image) if encoder.needs == "mask" else model.engine.probabilities(image)
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


def _check_memory(model: Model, encoder: Encoder, size: int, height: int, width: int, settings: ServeSettings) -> None:
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
