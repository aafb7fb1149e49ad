"""Several images in one JSON request: `{"instances": [{"b64": "…"}, …]}`.

The response contains the outputs in the same order: as JSON, `{"predictions": […]}`, in which each element equals the
response to a single image; as RecordIO, one record per image; as NumPy, consecutive arrays, for `numpy.load` on one
open file. A PNG can contain only the output of a single image.
https://www.tensorflow.org/tfx/serving/api_rest#predict_api
"""

from __future__ import annotations

import binascii
import io
import json
import re
import string
from typing import Any, NoReturn

from container.artifact.json_files import describe, to_int, unique
from container.codecs import file_types
from container.codecs.probabilities import Buffer
from container.errors import RequestError
from container.serving.requests import errors

CONTENT_TYPE = "application/json"
COPIES = 2  # of a body in memory: as received, and as decoded images, which are a quarter smaller

_MAX_IMAGES = 64  # images in one request
_FIX = 'Send {"instances": [{"b64": "the base64 of a JPEG or PNG"}]}.'
_IGNORED_KEYS = ("signature_name",)  # clients of TensorFlow Serving can add them
_MAX_STRUCTURE = 2**16  # bytes of a body without its strings: 64 images need 2000, and whitespace
_STRING_COST = 8  # bytes that each string counts as
_MAX_DEPTH = 1000  # about the limit of the Python parser
_MAX_KEY = 2**10  # bytes of a key
_BACKSLASH = b"\\"
_SPACE = ord(" ")
_MAX_BACKSLASHES = 64  # consecutive ones; base64 has none
_CHUNK = 2**20  # bytes of base64 that are decoded at a time: other threads wait meanwhile
_HEAD = 256

_BOM = b"\xef\xbb\xbf"
_DATA_URL = re.compile(rb"\s*data:([^,]{0,200}),", re.IGNORECASE)
_ALPHABET = f"{string.ascii_letters}{string.digits}+/=".encode()
_URL_SAFE = bytes.maketrans(b"-_", b"+/")
_BLANKS = b" \t\r\n"
_LINE_BREAKS = b"\t\r\n"
# Escapes in JSON and URLs for the characters of base64, and for line breaks, which are removed.
_ESCAPES = {rb"\/": b"/", rb"\n": b"", rb"\r": b"", rb"\t": b""} | {
    form % code: character.strip()
    for character in (b"+", b"/", b"=", b"-", b"_", b"\n", b"\r")
    for code in (b"%02x" % ord(character), b"%02X" % ord(character))
    for form in (rb"\u00%s", b"%%%s")
}


def read_instances(body: bytes) -> list[bytes]:
    """Return the bytes of the images; raises RequestError: 400 if the format differs, 413 if there are too many.

    To limit memory, the strings of the JSON are replaced by their indices before it is parsed, and the remaining
    structure must be small. The images are then decoded from the body in chunks.
    """
    start = len(_BOM) if body.startswith(_BOM) else 0
    if body[start : start + _HEAD].lstrip(_BLANKS)[:1] not in (b"{", b"[", b'"'):
        raise RequestError(400, f"The body is not JSON: it is {file_types.describe(body)}. {_FIX}")
    structure, strings = _extract_strings(body, start)

    def to_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        return unique([(_read_key(body, *strings[int(name)]), value) for name, value in pairs])

    try:
        content = json.loads(structure, object_pairs_hook=to_object, parse_int=to_int)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        if isinstance(error, json.JSONDecodeError):
            reason = error.msg  # without the position, which differs in the body
        elif isinstance(error, UnicodeDecodeError):
            reason = "it is not UTF-8"
        raise RequestError(400, f"The body is not JSON: {reason}. {_FIX}") from error
    if not isinstance(content, dict):
        raise RequestError(400, f"The JSON has no list `instances`: it is {describe(content)}. {_FIX}")
    if not isinstance(content.get("instances"), list):
        received = describe(content["instances"]) if "instances" in content else _describe_keys(content)
        raise RequestError(400, f"The JSON has no list `instances` but {received}. {_FIX}")
    if unknown := [key for key in content if key not in ("instances", *_IGNORED_KEYS)]:
        raise RequestError(400, f"The key {unknown[0][:50]!r} of the JSON is unknown. {_FIX}")
    instances = content["instances"]
    if not instances:
        raise RequestError(400, f"The list `instances` is empty. {_FIX}")
    if len(instances) > _MAX_IMAGES:
        raise errors.too_many_images(len(instances), _MAX_IMAGES)
    places = [strings[int(_check_instance(number, instance))] for number, instance in enumerate(instances)]
    return [_decode(number, body, *place) for number, place in enumerate(places)]


def _extract_strings(body: bytes, start: int) -> tuple[bytes, list[tuple[int, int]]]:
    """Return the JSON from `start` with each string replaced by its index, and the positions of the strings."""
    parts: list[bytes] = []
    strings: list[tuple[int, int]] = []
    size = 0
    while True:
        opening = body.find(b'"', start)
        end = len(body) if opening < 0 else opening
        size += end - start + _STRING_COST
        if size > _MAX_STRUCTURE:
            _reject_structure(body[start : start + _MAX_STRUCTURE])
        parts.append(body[start:end])
        if opening < 0:
            return b"".join(parts), strings
        closing = _find_end(body, opening + 1)
        parts.append(b'"%d"' % len(strings))
        strings.append((opening + 1, closing))
        start = closing + 1


def _reject_structure(part: bytes) -> NoReturn:
    """Reject JSON whose structure without strings is too large; `part` is the beginning of the excess."""
    if part.count(b"[") + part.count(b"{") > _MAX_DEPTH + part.count(b"]") + part.count(b"}"):
        raise RequestError(400, f"The body is not JSON: it is nested too deeply. {_FIX}")
    raise errors.json_too_large(_MAX_STRUCTURE, _MAX_IMAGES, _FIX)


def _find_end(body: bytes, start: int) -> int:
    """Return the end of the string that begins at `start`."""
    place = start
    for _ in range(_MAX_STRUCTURE):
        place = body.find(b'"', place)
        if place < 0:
            raise RequestError(400, f"The body is not JSON: a string is truncated. {_FIX}")
        before = body[max(start, place - _MAX_BACKSLASHES) : place]
        backslashes = len(before) - len(before.rstrip(b"\\"))
        if backslashes == _MAX_BACKSLASHES:
            break
        if backslashes % 2 == 0:
            return place
        place += 1
    raise RequestError(400, f"The JSON contains a string that is not base64. {_FIX}")


def _read_key(body: bytes, start: int, end: int) -> str:
    """Return a key of an object."""
    if end - start > _MAX_KEY:
        raise ValueError(f"it has a key of {end - start} bytes")
    name: str = json.loads(body[start - 1 : end + 1], strict=False)
    return name


def _check_instance(number: int, instance: Any) -> str:
    """Return the index of the string that contains the image of an instance."""
    if isinstance(instance, dict) and list(instance) == ["b64"] and isinstance(instance["b64"], str):
        return instance["b64"]
    if not isinstance(instance, dict):
        received = describe(instance)
    elif list(instance) == ["b64"]:
        received = f"`b64` with {describe(instance['b64'])}"
    else:
        received = _describe_keys(instance)
    raise RequestError(400, f'instances[{number}] is not {{"b64": "…"}} but {received}. {_FIX}')


def _describe_keys(content: dict[str, Any]) -> str:
    return f"an object with the keys {', '.join(repr(key[:50]) for key in list(content)[:5]) or 'of none'}"


def _decode(number: int, body: bytes, start: int, end: int) -> bytes:
    """Decode the base64 of an image, also with line breaks, the URL-safe alphabet, a `data:` URL, or no padding."""
    first = start
    if prefix := _DATA_URL.match(body[start : min(end, start + _HEAD)]):
        if not prefix[1].lower().endswith(b";base64"):
            raise RequestError(400, f"instances[{number}] is a data URL without ;base64. {_FIX}")
        start += prefix.end()

    def reject(reason: str) -> NoReturn:
        received = file_types.name(body[first : min(end, first + _HEAD)])
        guess = "" if received.startswith(("base64", "a data: URL", "bytes", "text")) else f"; it looks like {received}"
        raise RequestError(400, f"instances[{number}] is not base64: {reason}{guess}. {_FIX}")

    while start < end and body[start] == _SPACE:
        start += 1
    while start < end and body[end - 1] == _SPACE:
        end -= 1
    image, rest, padding = io.BytesIO(), b"", 0
    while start < end:
        stop = _chunk_end(body, start, end)
        chunk = _normalize(body[start:stop])
        if stray := chunk.translate(None, _ALPHABET)[:1]:  # 50 times as fast as a regular expression
            place = chunk.index(stray)
            shown = chunk[place : place + 6].decode(errors="replace")
            hint = ", perhaps in place of +" if shown[0] == " " else ""
            reject(f"it contains {shown if stray == _BACKSLASH else repr(shown[0])}{hint}")
        data = chunk.rstrip(b"=")
        if data and (padding or b"=" in data):
            reject("it continues after its padding (=)")
        padding += len(chunk) - len(data)
        data, start = rest + data, stop
        whole = len(data) - len(data) % 4
        image.write(binascii.a2b_base64(data[:whole]))
        rest = data[whole:]
    if len(rest) == 1 or padding not in (0, -len(rest) % 4):
        reject("it is truncated, or its padding (=) is wrong")
    image.write(binascii.a2b_base64(rest + b"=" * (-len(rest) % 4)))
    if not image.tell():
        raise RequestError(400, f"instances[{number}] is empty. {_FIX}")
    return image.getvalue()


def _chunk_end(body: bytes, start: int, end: int) -> int:
    """Return the end of the chunk that begins at `start`, which is not within an escape."""
    stop = start + _CHUNK
    if stop >= end:
        return end
    escape = max(body.rfind(b"\\", stop - 5, stop), body.rfind(b"%", stop - 2, stop))
    return stop if escape < 0 else escape


def _normalize(text: bytes) -> bytes:
    """Return base64 in the standard alphabet, without line breaks and escapes.

    Spaces remain and are an error, because a form that is decoded twice contains them instead of +.
    """
    if (b"\\" in text or b"%" in text) and b"\\\\" not in text:
        for escape, character in _ESCAPES.items():
            text = text.replace(escape, character)
    return text.translate(_URL_SAFE, _LINE_BREAKS)


def check_count(media_type: str, count: int) -> None:
    """Raise RequestError 406 if the response format cannot contain the outputs of `count` images."""
    if media_type == "image/png" and count > 1:
        others = "application/json, application/x-recordio-protobuf or application/x-npy"
        raise RequestError(406, f"Accept: image/png can contain one mask, not {count}; request {others}")


def join_responses(media_type: str, responses: list[list[Buffer]]) -> list[Buffer]:
    """Join the outputs of the images in order."""
    if media_type != "application/json":
        return [buffer for response in responses for buffer in response]
    joined: list[Buffer] = []
    for response in responses:
        joined += [b", " if joined else b'{"predictions": [', *response]
    return [*joined, b"]}"]
