"""The text and fix of every HTTP 413 and 503 response; sizes come from `codecs/images.py` and `engines/costs.py`."""

from __future__ import annotations

import math

from container.errors import RequestError

_SMALLER_RESPONSE = "Scale the image down, or request image/png, or application/x-npy with top_k or dtype."


class ServiceUnavailableError(RequestError):
    """HTTP 503: the server cannot process the request now; `retry_after` is in seconds."""

    def __init__(self, message: str, retry_after: float = 1) -> None:
        super().__init__(503, message)
        self.retry_after = max(1, math.ceil(retry_after))


class ClientDisconnectedError(RequestError):
    """Status 499, as in nginx: the client closed the connection. The status appears only in the log."""

    def __init__(self) -> None:
        super().__init__(499, "The client closed the connection.")


# 413: bodies


def body_too_large(limit: int, fix: str | None = None) -> RequestError:
    """Return the error of a body that is larger than `limit` bytes; `fix` is for bodies that are not images."""
    fix = fix or "Compress or scale the image, or raise MAX_CONTENT_LENGTH."
    return RequestError(413, f"The body is larger than {limit} bytes. {fix}")


def body_exceeds_memory(limit: int) -> RequestError:
    """Return the error of a body that is larger than the memory reserved for the bodies of all requests."""
    problem = f"The body has more than the {limit} bytes that this server's memory allows."
    return RequestError(413, f"{problem} Compress or scale the image, or add memory.")


def decompressed_body_too_large(limit: int) -> RequestError:
    """Return the error of a gzip body that has more than `limit` bytes after decompression."""
    problem = f"The body decompresses to more than {limit} bytes."
    return RequestError(413, f"{problem} Scale the image, or raise MAX_CONTENT_LENGTH.")


def too_many_gzip_streams(limit: int) -> RequestError:
    """Return the error of a gzip body that consists of more than `limit` streams."""
    return RequestError(413, f"The body consists of more than {limit} gzip streams. Compress it as one stream.")


def json_too_large(limit: int, image_limit: int, fix: str) -> RequestError:
    """Return the error of a JSON body that has more than `limit` bytes in addition to the images."""
    problem = f"The JSON has more than {limit} bytes without its images: it has arrays of pixels, or too many images."
    return RequestError(413, f"{problem} {fix} The limit is {image_limit} images.")


def too_many_images(count: int, limit: int) -> RequestError:
    """Return the error of a request with more than `limit` images."""
    return RequestError(413, f"The request has {count} images, more than {limit}. Send the images in several requests.")


# 413: images


def image_has_too_many_pixels(error: Exception) -> RequestError:
    """Return the error of an image above MAX_PIXELS; `error` describes the size and the limit."""
    return RequestError(413, f"{error}. Scale the image down, or raise MAX_PIXELS.")


def images_have_too_many_pixels(count: int, limit: int) -> RequestError:
    """Return the error of several images that together have more pixels than MAX_PIXELS."""
    problem = f"The images have {count} pixels, more than {limit}."
    return RequestError(413, f"{problem} Send the images in several requests, or raise MAX_PIXELS.")


def image_exceeds_memory(error: Exception, *, tta: bool) -> RequestError:
    """Return the error of an image for which the server never has enough memory; `error` describes the numbers."""
    without = " omit tta," if tta else ""
    return RequestError(413, f"{error}. Scale the image down,{without} or choose an instance with more memory.")


def inference_exceeds_timeout(
    sizes: list[str], pixels: int, seconds: float, limit: float, *, tta: bool
) -> RequestError:
    """Return the error of images that take longer than the timeout even if the server processes no other request."""
    if len(sizes) == 1:
        images, fix = f"{sizes[0]} pixels", "Scale the image down"
    else:
        images, fix = f"The {pixels} pixels of the images", "Send the images in several requests"
    if tta:
        images, fix = f"{images} with tta", f"{fix}, or omit tta"
    allowed = f"more than the {limit:.0f} s that SAGEMAKER_MODEL_SERVER_TIMEOUT allows"
    return RequestError(413, f"{images} take about {seconds:.0f} s, {allowed}. {fix}.")


# 413: responses


def response_too_large(size: int, limit: int) -> RequestError:
    """Return the error of a response of `size` bytes, above MAX_RESPONSE_BYTES."""
    problem = f"The response has {size} bytes, more than MAX_RESPONSE_BYTES={limit}."
    return RequestError(413, f"{problem} {_SMALLER_RESPONSE}")


def record_too_large(error: Exception) -> RequestError:
    """Return the error of probabilities that do not fit in a RecordIO record; `error` describes the size."""
    return RequestError(413, f"{error}. {_SMALLER_RESPONSE}")


# 503


def model_loading() -> ServiceUnavailableError:
    """Return the error of a request before the model is loaded."""
    return ServiceUnavailableError("The server is loading the model. Try again.")


def engine_failed() -> ServiceUnavailableError:
    """Return the error of a health check after repeated inference failures."""
    return ServiceUnavailableError("The inference engine failed, and the server restarts it. Try again.")


def model_changed(name: str) -> ServiceUnavailableError:
    """Return the error of a request whose model was loaded again, with other files, after the request arrived."""
    return ServiceUnavailableError(f"The model {name} changed after the request arrived. Try again.")


def bodies_exceed_memory(reserved: int) -> ServiceUnavailableError:
    """Return the error of a body that does not fit next to those of other requests, which have `reserved` bytes."""
    problem = f"The server already holds {reserved} bytes of request bodies."
    return ServiceUnavailableError(f"{problem} Try again later, or add memory.")


def queue_full(count: int, wait: float, excess: float) -> ServiceUnavailableError:
    """Return the error of a request that is expected to wait `excess` seconds longer than it can."""
    problem = f"{count} requests wait in the queue, for about {wait:.0f} s."
    return ServiceUnavailableError(f"{problem} Try again later, or add instances.", excess)


def queue_timeout() -> ServiceUnavailableError:
    """Return the error of a request that has waited for QUEUE_SECONDS."""
    return ServiceUnavailableError("The earlier requests took too long (QUEUE_SECONDS). Try again later.")


def server_stopping(retry_after: float) -> ServiceUnavailableError:
    """Return the error of a request that is still in the queue shortly before the server stops."""
    return ServiceUnavailableError("The server stops, and the earlier requests took too long. Try again.", retry_after)


def deadline_exceeded() -> ServiceUnavailableError:
    """Return the error of a request whose deadline has passed."""
    return ServiceUnavailableError("The request took too long. Try again later, or with a smaller image.")
