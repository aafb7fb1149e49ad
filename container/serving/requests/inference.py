"""One inference request: the checks in order, then inference and encoding."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Iterator

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
from container.serving.models import ModelSource
from container.serving.requests import errors, instances
from container.serving.requests.bodies import decompress_gzip, is_gzip, read_body
from container.serving.requests.deadline import RequestDeadline
from container.serving.requests.log import RequestRecord
from container.serving.requests.negotiation import choose_media_type, read_accept, wants_gzip
from container.serving.requests.queue import RequestQueue
from container.serving.settings import ServeSettings

CONTENT_TYPES = ("image/jpeg", "image/png", "application/x-image", "image/jpg", "image/pjpeg")
# The bytes decide if the type does not identify the format: defaults of S3 and curl, ranges, and unregistered names.
ANY_TYPES = (
    *("", "application/octet-stream", "binary/octet-stream", "application/x-www-form-urlencoded", "*/*", "image/*"),
    *("image/x-png", "image/x-jpeg", "image/x-jpg", "image/jfif"),
)

_HEADER_LENGTH = 100  # characters of a header in an error message
_JSON_MASK_BYTES = 4  # per pixel: the upper bound of a mask in JSON; noise of 254 classes has 3.1

_LEARNED_PHASES = ("decode", "inference", "encode")  # their duration depends on the size of the image


@dataclasses.dataclass(frozen=True)
class ServingContext:
    """Objects that all requests share."""

    settings: ServeSettings
    queue: RequestQueue
    budget: MemoryBudget
    executor: InferenceExecutor
    health: Health


@dataclasses.dataclass(frozen=True)
class EncodedResponse:
    """The body of a response, as consecutive buffers."""

    media_type: str
    buffers: list[Buffer]
    is_gzip: bool

    @property
    def length(self) -> int:
        """Number of bytes."""
        return sum(map(len, self.buffers))


@dataclasses.dataclass(frozen=True)
class _ResponseFormat:
    """The response format that the `Accept` and `Accept-Encoding` headers select."""

    media_type: str
    encoder: Encoder
    tta: AugmentedViews | None
    gzip: bool


@dataclasses.dataclass(frozen=True)
class _Image:
    """An image that passed the checks of its header; `size` is the bytes of its response, or 0 if not known yet."""

    body: bytes
    height: int
    width: int
    plan: Plan
    size: int

    @property
    def response_memory(self) -> int:
        """Upper bound of the bytes of its response."""
        return self.size or _JSON_MASK_BYTES * self.height * self.width


@dataclasses.dataclass(frozen=True)
class InferenceRequest:
    """One request to a model, with one image or several. The caller closes `reservation` after the response is sent."""

    request: Request
    model: ModelSource
    server: ServingContext
    deadline: RequestDeadline
    reservation: Reservation
    record: RequestRecord

    def process(self) -> EncodedResponse:
        """Return the encoded masks or probabilities.

        The request is rejected at the first step that fails; an error in one image rejects all images. All steps share
        one deadline: after it, each step that waits raises 503, or 499 if the client disconnected.
        """
        response_format = self._choose_response_format()  # 406: Accept
        self._check_content_type()  # 415
        bodies = self._read_bodies()  # 415: Content-Encoding. 413: size and memory. 408, 400. 503: memory of all bodies
        instances.check_count(response_format.media_type, len(bodies))  # 406: several images in one PNG
        images = self._read_headers(bodies, response_format)  # 400, 415: not an image. 413: pixels and memory of one
        self._check_totals(images, response_format)  # 413: pixels, time, and response size of all images
        del bodies
        outputs: list[list[Buffer]] = []
        with contextlib.ExitStack() as resources:
            with self.record.phase("queue"):
                seconds = sum(self.model.info.latency.estimate(image.plan.pixels) for image in images)
                resources.enter_context(self.server.queue.slot(seconds, self.deadline))  # 503
                estimate = _estimate_memory(images, response_format)
                engine = resources.enter_context(self.model.use(self.reservation, estimate, self.deadline))  # 503, 404
            for number, image in enumerate(images):
                with self._error_context(number):
                    learned = self.record.seconds(*_LEARNED_PHASES)
                    pixels = self._decode(image)  # 400
                    output = self._run_inference(engine, pixels, image.plan, response_format)
                    del pixels
                    outputs.append(self._encode(output, response_format))
                    del output
                    if not is_thin(image.height, image.width):
                        seconds = self.record.seconds(*_LEARNED_PHASES) - learned
                        self.model.info.latency.update(image.plan.pixels, seconds)
            buffers = instances.join_responses(response_format.media_type, outputs) if self._is_json else outputs[0]
            if response_format.gzip:
                buffers = self._compress(buffers)
        del image, images
        self.reservation.release_body()
        response = EncodedResponse(response_format.media_type, buffers, response_format.gzip)
        self.reservation.replace_estimate(response.length)
        self._check_response_size(response.length)  # 413
        return response

    @property
    def _is_json(self) -> bool:
        return self.request.mimetype == instances.CONTENT_TYPE

    def _choose_response_format(self) -> _ResponseFormat:
        info, headers = self.model.info, self.request.headers
        default = instances.CONTENT_TYPE if self._is_json else "image/png"
        media_type, options = choose_media_type(read_accept(headers.get("Accept", "")), default)
        try:
            tta = AugmentedViews.read(options["tta"]) if "tta" in options else None
            encoder = ENCODERS[media_type]({key: options[key] for key in options if key != "tta"}, info.classes)
            encoder.size(info.num_classes, 1, 1)  # rejects options that the number of classes does not allow
        except ValueError as error:
            raise RequestError(406, f"Accept: {media_type}: {error}") from error
        gzip = wants_gzip(self.request.accept_encodings, encoder.compression)
        return _ResponseFormat(media_type, encoder, tta, gzip)

    def _check_content_type(self) -> None:
        mimetype = self.request.mimetype
        if mimetype not in (*CONTENT_TYPES, *ANY_TYPES, instances.CONTENT_TYPE):
            fix = "send the raw bytes of a JPEG or PNG as image/jpeg or image/png, or several in application/json"
            raise RequestError(415, f"Content-Type {mimetype[:_HEADER_LENGTH]} is not supported; {fix}")

    def _read_bodies(self) -> list[bytes]:
        """Return the bytes of each image; reserves their memory before they are stored."""
        request, executor, limit = self.request, self.server.executor, self.server.settings.max_body
        copies = instances.COPIES if self._is_json else 1

        def reserve(size: int) -> None:
            self.reservation.add_body(size * copies)

        is_compressed = is_gzip(request)
        with self.record.phase("read"):
            body = read_body(request, limit, self.reservation.add_body if is_compressed else reserve, self.deadline)
            if is_compressed:
                body = executor.run(functools.partial(decompress_gzip, body, limit, reserve), self.deadline)
            if self._is_json:
                bodies = executor.run(functools.partial(instances.read_instances, body), self.deadline)
            else:
                bodies = [body]
        self.record.fields.update(bytes_in=len(body))
        return bodies

    def _read_headers(self, bodies: list[bytes], response_format: _ResponseFormat) -> list[_Image]:
        budget = self.server.budget
        memory = min(budget.image_limit, budget.request_limit - self.model.memory)
        mimetype, max_pixels = self.request.mimetype, self.server.settings.max_pixels
        images: list[_Image] = []
        for number, body in enumerate(bodies):
            with self._error_context(number):
                # on a native thread, because the header can be behind 100 MB of other data
                header = self.server.executor.executor.submit(_read_header, body, mimetype, max_pixels).result()
                images.append(self._check_image(header, body, response_format, memory))
            memory -= images[-1].response_memory  # remains in memory while the next image is processed
        if self._is_json:
            self.record.fields.update(images=len(images))
        return images

    def _check_image(self, header: Header, body: bytes, response_format: _ResponseFormat, memory: int) -> _Image:
        """Return the image with the plan of its inference; `memory` is the number of bytes for it."""
        info, encoder, tta = self.model.info, response_format.encoder, response_format.tta
        height, width = header.shape(self.server.settings.exif_orientation)
        self.record.fields.update(height=height, width=width)
        try:
            size = encoder.size(info.num_classes, height, width)
            encoding = encoder.memory(info.num_classes, height, width) + (size if response_format.gzip else 0)
            if tta:
                plan = tta.plan(info.planner, info.num_classes, (height, width), memory, encoding)
            else:
                is_probabilities = encoder.needs == "probabilities"
                output = 4 * info.num_classes * height * width + encoding if is_probabilities else size
                plan = info.planner.plan(height, width, memory, output, encoder.needs)
        except RecordTooLongError as error:
            raise errors.record_too_large(error) from error
        except ImageTooLargeError as error:
            raise errors.image_exceeds_memory(error, tta=tta is not None) from error
        return _Image(body, height, width, plan, size)

    def _check_totals(self, images: list[_Image], response_format: _ResponseFormat) -> None:
        pixels = sum(image.height * image.width for image in images)
        if pixels > self.server.settings.max_pixels:
            raise errors.images_have_too_many_pixels(pixels, self.server.settings.max_pixels)
        seconds = sum(self.model.info.latency.minimum(image.plan.pixels) for image in images)
        if seconds > self.deadline.total:
            sizes = [f"{image.width}×{image.height}" for image in images]
            raise errors.inference_exceeds_timeout(
                sizes, pixels, seconds, self.deadline.total, tta=response_format.tta is not None
            )
        if not response_format.gzip:
            self._check_response_size(sum(image.size for image in images))

    def _decode(self, image: _Image) -> Uint8Array:
        settings, image_range = self.server.settings, self.model.info.image_range

        def decode() -> Uint8Array:
            return decode_image(
                image.body, settings.max_pixels, orientation=settings.exif_orientation, image_range=image_range
            )

        with self.record.phase("decode"):
            return self.server.executor.run(decode, self.deadline)

    def _run_inference(self, engine: Engine, pixels: Uint8Array, plan: Plan, response_format: _ResponseFormat) -> Array:
        """Return the mask or the probabilities; the deadline cancels the inference."""
        augmented = AveragedEngine(engine, response_format.tta) if response_format.tta else engine
        infer = augmented.mask if response_format.encoder.needs == "mask" else augmented.probabilities
        executor, cancellation = self.server.executor, CancellationToken()
        with contextlib.ExitStack() as resources:
            with self.record.phase("queue"):
                resources.enter_context(executor.inference_slot(self.deadline))
                self.deadline.end_queue_limit()
            with self.record.phase("inference"), self.server.health.monitor():
                return executor.run(functools.partial(infer, pixels, plan, cancellation), self.deadline, cancellation)

    def _encode(self, output: Array, response_format: _ResponseFormat) -> list[Buffer]:
        with self.record.phase("encode"):
            return self.server.executor.run(functools.partial(response_format.encoder.encode, output), self.deadline)

    def _compress(self, buffers: list[Buffer]) -> list[Buffer]:
        with self.record.phase("compress"):
            return self.server.executor.run(lambda: compress(buffers), self.deadline)

    def _check_response_size(self, size: int) -> None:
        limit = self.server.settings.max_response
        if limit is not None and size > limit:
            raise errors.response_too_large(size, limit)

    @contextlib.contextmanager
    def _error_context(self, number: int) -> Iterator[None]:
        """Convert errors of the decoder, and start the messages with the index of the image if there are several."""
        try:
            try:
                yield
            except TooManyPixelsError as error:
                raise errors.image_has_too_many_pixels(error) from error
            except DecodeError as error:
                raise RequestError(400, str(error)) from error
        except RequestError as error:
            if not self._is_json or type(error) is not RequestError:  # 503 and 499 are not about the image
                raise
            raise RequestError(error.status, f"instances[{number}]: {error.message}") from error


def _read_header(body: bytes, mimetype: str, max_pixels: int) -> Header:
    """Read the header of an image on a native thread, in which `flask.request` is not available."""
    try:
        return read_header(body, max_pixels)
    except NotAnImageError as error:
        if mimetype not in ANY_TYPES:
            raise
        received = f"Content-Type {mimetype} is" if mimetype else "no Content-Type is"
        raise RequestError(415, f"{received} supported for a JPEG or PNG only: {error}") from error


def _estimate_memory(images: list[_Image], response_format: _ResponseFormat) -> MemoryEstimate:
    """Return the memory for the images, one after the other, including the responses to the earlier ones.

    The compressed responses need at most as much again.
    """
    peak = base = responses = 0
    for image in images:
        peak = max(peak, responses + image.plan.memory)
        base = max(base, responses + image.plan.memory - image.plan.passing)
        responses += image.response_memory
    if response_format.gzip and len(images) > 1:
        base = max(base, 2 * responses)
    return MemoryEstimate(base, max(0, peak - base))
