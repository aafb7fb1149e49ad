"""One inference request: negotiation, images, queue, inference, encoding."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator

from werkzeug.wrappers import Request

from container.arrays import Array, Uint8Array
from container.codecs.images import DecodeError, Header, NotAnImageError, TooManyPixelsError, decode_image, read_header
from container.codecs.probabilities import Buffer
from container.codecs.recordio import RecordTooLongError
from container.codecs.response_formats import ENCODERS, Encoder, compress
from container.engines.protocol import CancellationToken, Engine, ImageTooLargeError, Plan
from container.engines.tta import AugmentedViews, AveragedEngine
from container.errors import RequestError
from container.geometry.tiles import is_thin
from container.serving.executor import InferenceExecutor
from container.serving.health import Health
from container.serving.memory_budget import MemoryBudget, MemoryEstimate, Reservation
from container.serving.models import ModelInfo, Source
from container.serving.requests import instances
from container.serving.requests.bodies import read_body
from container.serving.requests.deadline import RequestDeadline
from container.serving.requests.encodings import is_compressed, unpack_gzip
from container.serving.requests.log import Record
from container.serving.requests.negotiation import choose_media_type, read_accept, wants_gzip
from container.serving.requests.queue import RequestQueue
from container.serving.settings import ServeSettings

CONTENT_TYPES = ("image/jpeg", "image/png", "application/x-image", "image/jpg", "image/pjpeg")
# The bytes decide if the type does not identify the format: defaults of S3 and curl, ranges, and unregistered names.
ANY_TYPES = (
    *("", "application/octet-stream", "binary/octet-stream", "application/x-www-form-urlencoded", "*/*", "image/*"),
    *("image/x-png", "image/x-jpeg", "image/x-jpg", "image/jfif"),
)

_SHOWN = 100  # characters of a header in an error
_MASK_BYTES = 4  # per pixel, that the JSON of a mask has at most: 3.1 for noise of 254 classes

_LEARNT = ("decode", "inference", "encode")  # the phases that grow with the image

_SMALLER = "scale the image down, or ask for image/png, or for application/x-npy with top_k or dtype"


@dataclasses.dataclass(frozen=True)
class EncodedResponse:
    """The buffers that, one after the other, are the answer."""

    media_type: str
    buffers: list[Buffer]
    is_gzip: bool

    @property
    def length(self) -> int:
        """How many bytes it has."""
        return sum(map(len, self.buffers))


@dataclasses.dataclass(frozen=True)
class ServingContext:
    """What all requests share."""

    settings: ServeSettings
    gate: RequestQueue
    ledger: MemoryBudget
    native: InferenceExecutor
    health: Health


@dataclasses.dataclass(frozen=True)
class _Image:
    """An image that can be answered, with `size` bytes (0: only the answer can say)."""

    body: bytes
    height: int
    width: int
    plan: Plan
    size: int

    @property
    def kept(self) -> int:
        """How many bytes its answer takes at most, until those to all images are there."""
        return self.size or _MASK_BYTES * self.height * self.width


@dataclasses.dataclass(frozen=True)
class _ResponseFormat:
    """What the request's Accept asks for: the answer's form, and how the network is to look at the image."""

    media_type: str
    encoder: Encoder
    views: AugmentedViews | None
    compressed: bool

    def plan(self, card: ModelInfo, size: int, height: int, width: int, room: int) -> Plan:
        """Return how to compute the image; refuse one that could only be answered with more memory than there is."""
        try:
            copy = self.encoder.memory(card.num_classes, height, width) + (size if self.compressed else 0)
            if self.views:
                return self.views.plan(card.planner, card.num_classes, (height, width), room, copy)
            answer = 4 * card.num_classes * height * width + copy if self.encoder.needs == "probabilities" else size
            return card.planner.plan(height, width, room, answer, self.encoder.needs)
        except ImageTooLargeError as error:
            without = ", ask without tta" if self.views else ""
            remedy = f"scale it down{without}, or take an instance with more memory"
            raise RequestError(413, f"{error}; {remedy}") from error

    def computer(self, engine: Engine) -> Callable[[Uint8Array, Plan, CancellationToken], Array]:
        """Return what computes the answer."""
        computing = AveragedEngine(engine, self.views) if self.views else engine
        return computing.mask if self.encoder.needs == "mask" else computing.probabilities


def answer(
    request: Request,
    source: Source,
    office: ServingContext,
    account: Reservation,
    clock: RequestDeadline,
    record: Record,
) -> EncodedResponse:
    """Answer one image, or several in turn; what can be refused without the engine is, in the order of statuses' cost.

    What is wrong with one of several images refuses them all. What the answer takes stays in the account.
    """
    settings, card = office.settings, source.card()
    several = request.mimetype == instances.CONTENT_TYPE
    wish = _read_wish(request, card, instances.CONTENT_TYPE if several else "image/png")
    _check_content_type(request)
    bodies = _read_bodies(request, office, account, clock, record, several=several)
    instances.check_count(wish.media_type, len(bodies))
    naming = instances.naming if several else contextlib.nullcontext
    images: list[_Image] = []
    room = min(office.ledger.image_room, office.ledger.room - source.weight())
    for number, body in enumerate(bodies):
        with naming(number):
            held = sum(image.kept for image in images)  # the answers to those before, when this one is answered
            with _refusing_unusable_images():
                header = office.native.executor.submit(_read_header, request.mimetype, body, settings).result()
            images.append(_check_image(header, body, card, wish, settings, room - held, record))
    del body, bodies
    if several:
        record.facts.update(images=len(images))
    _check_together(images, wish, card, clock, settings)
    answers: list[list[Buffer]] = []
    with contextlib.ExitStack() as seated:
        with record.phase("queue"):
            seated.enter_context(office.gate.seat(_estimate(card, images), clock))
            engine = seated.enter_context(source.use(account, _work(images, wish), clock))
        for number, image in enumerate(images):
            with naming(number):
                answers.append(_compute(image, engine, card, wish, office, clock, record))
        buffers = instances.join_answers(wish.media_type, answers) if several else answers[0]
        if wish.compressed:
            with record.phase("compress"):
                buffers = office.native.run(lambda: compress(buffers), clock)
    del image, images
    account.drop_body()
    found = EncodedResponse(wish.media_type, buffers, wish.compressed)
    account.keep_answer(found.length)
    _check_length(found.length, settings)
    return found


def _read_bodies(
    request: Request,
    office: ServingContext,
    account: Reservation,
    clock: RequestDeadline,
    record: Record,
    *,
    several: bool,
) -> list[bytes]:
    """Return the bytes of the request's images."""
    packed, limit = is_compressed(request), office.settings.max_body
    copies = instances.COPIES if several else 1
    with record.phase("read"):
        body = read_body(request, limit, lambda size: account.add_body(size * (1 if packed else copies)), clock)
        if packed:
            grow = functools.partial(_add_copies, account, copies)
            body = office.native.run(functools.partial(unpack_gzip, body, limit, grow), clock)
        bodies = office.native.run(functools.partial(instances.read_instances, body), clock) if several else [body]
    record.facts.update(bytes_in=len(body))
    return bodies


def _add_copies(account: Reservation, copies: int, size: int) -> None:
    account.add_body(size * copies)


def _estimate(card: ModelInfo, images: list[_Image]) -> float:
    """Return the seconds that the images will likely take."""
    return sum(card.speed.estimate(image.plan.pixels) for image in images)


def _work(images: list[_Image], wish: _ResponseFormat) -> MemoryEstimate:
    """Return the memory that the images need, one after the other, beside the answers to those before.

    Compressing the answers takes at most as much again.
    """
    most = kept = held = 0
    for image in images:
        most = max(most, held + image.plan.memory)
        kept = max(kept, held + image.plan.memory - image.plan.passing)
        held += image.kept
    if wish.compressed and len(images) > 1:
        kept = max(kept, 2 * held)
    return MemoryEstimate(kept, max(0, most - kept))


def _check_image(
    header: Header,
    body: bytes,
    card: ModelInfo,
    wish: _ResponseFormat,
    settings: ServeSettings,
    room: int,
    record: Record,
) -> _Image:
    """Refuse an image that cannot be answered, by its header; `room` is the memory that there is for it."""
    height, width = header.shape(settings.exif_orientation)
    record.facts.update(height=height, width=width)
    try:
        size = wish.encoder.size(card.num_classes, height, width)
    except RecordTooLongError as error:
        raise RequestError(413, f"{error}; {_SMALLER}") from error
    return _Image(body, height, width, wish.plan(card, size, height, width, room), size)


def _check_together(
    images: list[_Image], wish: _ResponseFormat, card: ModelInfo, clock: RequestDeadline, settings: ServeSettings
) -> None:
    """Refuse images that are too large together, or would take too long even if they were alone."""
    pixels = sum(image.height * image.width for image in images)
    if pixels > settings.max_pixels:
        remedy = "send them in several requests, or raise MAX_PIXELS"
        raise RequestError(413, f"the images have {pixels} pixels, more than {settings.max_pixels}; {remedy}")
    seconds = sum(card.speed.least(image.plan.pixels) for image in images)
    if seconds > clock.allowance:
        limit = f"more than the {clock.allowance:.0f} s that SAGEMAKER_MODEL_SERVER_TIMEOUT allows"
        if len(images) == 1:
            what, remedy = f"{images[0].width}×{images[0].height} pixels", "scale the image down"
        else:
            what, remedy = f"the images' {pixels} pixels", "send them in several requests"
        if wish.views:
            what, remedy = f"{what} with tta", f"{remedy}, or ask without tta"
        raise RequestError(413, f"{what} take about {seconds:.0f} s, {limit}; {remedy}")
    if not wish.compressed:
        _check_length(sum(image.size for image in images), settings)


def _read_wish(request: Request, card: ModelInfo, default: str) -> _ResponseFormat:
    media_type, options = choose_media_type(read_accept(request.headers.get("Accept", "")), default)
    try:
        views = AugmentedViews.read(options["tta"]) if "tta" in options else None
        others = {name: value for name, value in options.items() if name != "tta"}
        encoder = ENCODERS[media_type](others, card.classes)
        encoder.size(card.num_classes, 1, 1)  # knows what the model's classes do not allow
    except ValueError as error:
        raise RequestError(406, f"Accept: {media_type}: {error}") from error
    return _ResponseFormat(media_type, encoder, views, wants_gzip(request.accept_encodings, encoder.compression))


def _check_content_type(request: Request) -> None:
    if request.mimetype not in (*CONTENT_TYPES, *ANY_TYPES, instances.CONTENT_TYPE):
        remedy = "send the raw bytes of a JPEG or PNG as image/jpeg or image/png, or several in application/json"
        raise RequestError(415, f"Content-Type {request.mimetype[:_SHOWN]} is not supported; {remedy}")


def _read_header(mimetype: str, body: bytes, settings: ServeSettings) -> Header:
    """Read an image's header, on a compute thread: it may lie behind 100 MB."""
    try:
        return read_header(body, settings.max_pixels)
    except NotAnImageError as error:
        if mimetype not in ANY_TYPES:
            raise
        given = f"Content-Type {mimetype} is" if mimetype else "no Content-Type is"
        raise RequestError(415, f"{given} supported for a JPEG or PNG only: {error}") from error


def _compute(
    image: _Image,
    engine: Engine,
    card: ModelInfo,
    wish: _ResponseFormat,
    office: ServingContext,
    clock: RequestDeadline,
    record: Record,
) -> list[Buffer]:
    settings, native, stop = office.settings, office.native, CancellationToken()
    compute = wish.computer(engine)
    before = record.seconds(*_LEARNT)
    with record.phase("decode"), _refusing_unusable_images():
        decode = functools.partial(decode_image, orientation=settings.exif_orientation, image_range=card.image_range)
        pixels = native.run(lambda: decode(image.body, settings.max_pixels), clock)
    with contextlib.ExitStack() as lane:
        with record.phase("queue"):
            lane.enter_context(native.lane(clock))
            clock.leave_queue()
        with record.phase("inference"), office.health.watching():
            found: Array = native.run(functools.partial(compute, pixels, image.plan, stop), clock, stop)
    del pixels
    with record.phase("encode"):
        buffers = native.run(functools.partial(wish.encoder.encode, found), clock)
    if not is_thin(image.height, image.width):
        card.speed.learn(image.plan.pixels, record.seconds(*_LEARNT) - before)
    return buffers


@contextlib.contextmanager
def _refusing_unusable_images() -> Iterator[None]:
    try:
        yield
    except TooManyPixelsError as error:
        raise RequestError(413, f"{error}; scale the image down, or raise MAX_PIXELS") from error
    except DecodeError as error:
        raise RequestError(400, str(error)) from error


def _check_length(size: int, settings: ServeSettings) -> None:
    if settings.max_response is not None and size > settings.max_response:
        raise RequestError(
            413, f"the answer has {size} bytes, more than MAX_RESPONSE_BYTES={settings.max_response}; {_SMALLER}"
        )
