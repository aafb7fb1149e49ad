"""Several images in one request, as TensorFlow Serving takes them: `{"instances": [{"b64": "…"}, …]}`.

Their answers come in the same order. As JSON they are `{"predictions": […]}`, each of them what the image alone would
be answered; RecordIO holds one record per image; NumPy's arrays follow one another, for `numpy.load` on one open file;
a PNG holds the answer to a single image.
https://www.tensorflow.org/tfx/serving/api_rest#predict_api
"""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Iterator
from typing import Any

from container.codecs.probabilities import Buffer
from container.errors import RequestError

CONTENT_TYPE = "application/json"
COPIES = 4  # how often such a body is in memory at most: as bytes, as text, as strings, as images

_LIMIT = 64  # images in one request
_FORM = 'send {"instances": [{"b64": "the base64 of a JPEG or PNG"}]}'
_IGNORED = ("signature_name",)  # what clients of TensorFlow Serving may add


def read_instances(body: bytes) -> list[bytes]:
    """Return the images' bytes; raises RequestError: 400 for another form, 413 for too many."""
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise RequestError(400, f"the body is no JSON: {reason}; {_FORM}") from error
    if not isinstance(content, dict) or not isinstance(content.get("instances"), list):
        raise RequestError(400, f"the JSON has no list `instances`; {_FORM}")
    if unknown := [key for key in content if key not in ("instances", *_IGNORED)]:
        raise RequestError(400, f"the JSON's key {unknown[0][:50]!r} is unknown; {_FORM}")
    instances = content["instances"]
    if not instances:
        raise RequestError(400, f"the list `instances` is empty; {_FORM}")
    if len(instances) > _LIMIT:
        raise RequestError(413, f"the request has {len(instances)} images, more than {_LIMIT}: send them in several")
    return [_decode(number, instance) for number, instance in enumerate(instances)]


def _decode(number: int, instance: Any) -> bytes:
    if not isinstance(instance, dict) or list(instance) != ["b64"] or not isinstance(instance["b64"], str):
        raise RequestError(400, f'instances[{number}] is not {{"b64": "…"}}; {_FORM}')
    try:
        image = base64.b64decode(instance["b64"], validate=True)
    except ValueError as error:
        raise RequestError(400, f"instances[{number}] is no base64: {error}") from error
    if not image:
        raise RequestError(400, f"instances[{number}] is empty; {_FORM}")
    return image


@contextlib.contextmanager
def naming(number: int) -> Iterator[None]:
    """Say of a refusal in the block which image it is about."""
    try:
        yield
    except RequestError as error:
        if type(error) is not RequestError:  # one that is not about the image
            raise
        raise RequestError(error.status, f"instances[{number}]: {error.message}") from error


def check_count(media_type: str, count: int) -> None:
    """Raise RequestError 406 when a form cannot hold the answers to so many images."""
    if media_type == "image/png" and count > 1:
        others = "application/json, application/x-recordio-protobuf or application/x-npy"
        raise RequestError(406, f"Accept: image/png holds one mask, the request has {count} images; ask for {others}")


def join_answers(media_type: str, answers: list[list[Buffer]]) -> list[Buffer]:
    """Put the images' answers together, in their order."""
    if media_type != "application/json":
        return [buffer for answer in answers for buffer in answer]
    joined: list[Buffer] = []
    for answer in answers:
        joined += [b", " if joined else b'{"predictions": [', *answer]
    return [*joined, b"]}"]
