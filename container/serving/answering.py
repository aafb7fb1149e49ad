"""One request from headers to buffers: what is asked for, the image, the seat, the engine, the answer's form."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Iterator

import numpy as np
from werkzeug.wrappers import Request

from container.codecs.answers import ENCODERS, Encoder, compress
from container.codecs.images import DecodeError, Header, NotAnImage, TooManyPixels, decode_image, read_header
from container.codecs.probabilities import Buffer
from container.codecs.recordio import RecordTooLong
from container.engines.protocol import Engine, Plan, Stop, TooLarge
from container.errors import RequestError
from container.serve_settings import ServeSettings
from container.serving.admission import Gate
from container.serving.bodies import read_body
from container.serving.clock import Clock
from container.serving.ledger import Account, Ledger
from container.serving.models import Card, Source
from container.serving.native import Native
from container.serving.negotiation import choose_media_type, wants_gzip
from container.serving.request_log import Record

CONTENT_TYPES = ("image/jpeg", "image/png", "application/x-image", "image/jpg", "image/pjpeg")
# what clients send that say nothing of the body (S3's and curl's defaults): then the bytes decide
ANY_TYPES = ("", "application/octet-stream", "binary/octet-stream", "application/x-www-form-urlencoded")

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
class Office:
    """What all requests share."""

    settings: ServeSettings
    gate: Gate
    ledger: Ledger
    native: Native


def answer(request: Request, source: Source, office: Office, account: Account, clock: Clock, record: Record) -> Answer:
    """Answer one image; whatever can be refused without the engine is, in the order of the statuses' cost.

    What the answer takes stays in the account.
    """
    settings, card = office.settings, source.card()
    media_type, encoder = _choose_encoder(request, card)
    _check_content_type(request)
    compressed = encoder.compressible and wants_gzip(request.accept_encodings)
    with record.phase("read"):
        body = read_body(request, settings.max_body, account, clock)
    with _refusing_unusable_images():
        height, width = _read_header(request, body, settings).shape(settings.exif_orientation)
    record.facts.update(bytes_in=len(body), height=height, width=width)
    try:
        size = encoder.size(card.num_classes, height, width)
    except RecordTooLong as error:
        raise RequestError(413, f"{error}; {_SMALLER}") from error
    plan = _plan(
        card, encoder, size, height, width, min(office.ledger.image_room, office.ledger.room - source.weight())
    )
    _check_time(card, plan, clock, height, width)
    if not compressed:
        _check_length(size, settings)
    with contextlib.ExitStack() as seated:
        with record.phase("queue"):
            seated.enter_context(office.gate.seat(card.speed.estimate(plan.pixels), clock))
            engine = seated.enter_context(source.use(account, plan.memory, clock))
        buffers = _compute(body, engine, encoder, plan, office, clock, record)
        card.speed.learn(plan.pixels, record.seconds("decode", "inference", "encode"))
        if compressed:
            with record.phase("compress"):
                buffers = office.native.run(lambda: compress(buffers), clock)
    del body
    account.drop_body()
    found = Answer(media_type, buffers, compressed)
    account.keep_answer(found.length)
    _check_length(found.length, settings)
    return found


def _choose_encoder(request: Request, card: Card) -> tuple[str, Encoder]:
    media_type, options = choose_media_type(request.accept_mimetypes)
    try:
        encoder = ENCODERS[media_type](options, card.classes)
        encoder.size(card.num_classes, 1, 1)  # knows what the model's classes do not allow
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


def _compute(
    body: bytes, engine: Engine, encoder: Encoder, plan: Plan, office: Office, clock: Clock, record: Record
) -> list[Buffer]:
    settings, native, stop = office.settings, office.native, Stop()
    compute = engine.mask if encoder.needs == "mask" else engine.probabilities
    with record.phase("decode"), _refusing_unusable_images():
        decode = functools.partial(decode_image, orientation=settings.exif_orientation)
        image = native.run(lambda: decode(body, settings.max_pixels), clock)
    with contextlib.ExitStack() as lane:
        with record.phase("queue"):
            lane.enter_context(native.lane(clock))
        with record.phase("inference"):
            found: np.ndarray = native.run(functools.partial(compute, image, plan, stop), clock, stop)
    del image
    with record.phase("encode"):
        return native.run(functools.partial(encoder.encode, found), clock)


@contextlib.contextmanager
def _refusing_unusable_images() -> Iterator[None]:
    try:
        yield
    except TooManyPixels as error:
        raise RequestError(413, f"{error}; scale the image down, or raise MAX_PIXELS") from error
    except DecodeError as error:
        raise RequestError(400, str(error)) from error


def _plan(card: Card, encoder: Encoder, size: int, height: int, width: int, room: int) -> Plan:
    """Return how to compute the image; refuse one that could only be answered with more memory than there is."""
    answer = 4 * card.num_classes * height * width + size if encoder.needs == "probabilities" else size
    try:
        return card.planner.plan(height, width, room, answer)
    except TooLarge as error:
        raise RequestError(413, f"{error}; scale it down, or take an instance with more memory") from error


def _check_time(card: Card, plan: Plan, clock: Clock, height: int, width: int) -> None:
    """Refuse an image that would take too long even if it were alone."""
    seconds = card.speed.least(plan.pixels)
    if seconds > clock.allowance:
        limit = f"more than the {clock.allowance:.0f} s that SAGEMAKER_MODEL_SERVER_TIMEOUT allows"
        raise RequestError(413, f"{width}×{height} pixels take about {seconds:.0f} s, {limit}; scale the image down")


def _check_length(size: int, settings: ServeSettings) -> None:
    if settings.max_response is not None and size > settings.max_response:
        raise RequestError(
            413, f"the answer has {size} bytes, more than MAX_RESPONSE_BYTES={settings.max_response}; {_SMALLER}"
        )
