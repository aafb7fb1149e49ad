"""Several images in one JSON request: `{"instances": [{"b64": "…"}, …]}`.

Their answers come in the same order. As JSON they are `{"predictions": […]}`, each of them what the image alone would
be answered; RecordIO holds one record per image; NumPy's arrays follow one another, for `numpy.load` on one open file;
a PNG holds the answer to a single image.
https://www.tensorflow.org/tfx/serving/api_rest#predict_api
"""

from __future__ import annotations

import binascii
import contextlib
import io
import json
import re
import string
from collections.abc import Iterator
from typing import Any, NoReturn

from container.artifact.json_files import describe, to_int, unique
from container.codecs import file_types
from container.codecs.probabilities import Buffer
from container.errors import RequestError

CONTENT_TYPE = "application/json"
COPIES = 2  # how often such a body is in memory at most: as it came, and as images, which are a quarter smaller

_LIMIT = 64  # images in one request
_FORM = 'send {"instances": [{"b64": "the base64 of a JPEG or PNG"}]}'
_IGNORED = ("signature_name",)  # what clients of TensorFlow Serving may add
_STRUCTURE = 2**16  # bytes of a body without its strings: 64 images need 2000, and blanks
_STRING_COST = 8  # bytes for which each string counts
_DEPTH = 1000  # about where Python gives up
_NAME = 2**10  # bytes of a member's name
_BACKSLASH = b"\\"
_SPACE = ord(" ")
_BACKSLASHES = 64  # in a row; base64 has none
_PIECE = 2**20  # bytes of base64 that are decoded at a time: other threads wait that long
_HEAD = 256

_BOM = b"\xef\xbb\xbf"
_DATA_URL = re.compile(rb"\s*data:([^,]{0,200}),", re.IGNORECASE)
_ALPHABET = f"{string.ascii_letters}{string.digits}+/=".encode()
_URL_SAFE = bytes.maketrans(b"-_", b"+/")
_BLANKS = b" \t\r\n"
_LINE_BREAKS = b"\t\r\n"
# How JSON and URLs may write the characters of base64, and line breaks, which are dropped.
_ESCAPES = {rb"\/": b"/", rb"\n": b"", rb"\r": b"", rb"\t": b""} | {
    form % code: character.strip()
    for character in (b"+", b"/", b"=", b"-", b"_", b"\n", b"\r")
    for code in (b"%02x" % ord(character), b"%02X" % ord(character))
    for form in (rb"\u00%s", b"%%%s")
}


def read_instances(body: bytes) -> list[bytes]:
    """Return the images' bytes; raises RequestError: 400 for another form, 413 for too many.

    The body is not parsed as a whole: strings are first replaced by their numbers. What is left is small, or refused.
    The images are decoded from the body a piece at a time.
    """
    start = len(_BOM) if body.startswith(_BOM) else 0
    if body[start : start + _HEAD].lstrip(_BLANKS)[:1] not in (b"{", b"[", b'"'):
        raise RequestError(400, f"the body is no JSON: it is {file_types.describe(body)}; {_FORM}")
    structure, strings = _cut_out_strings(body, start)

    def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        return unique([(_read_name(body, *strings[int(name)]), value) for name, value in pairs])

    try:
        content = json.loads(structure, object_pairs_hook=members, parse_int=to_int)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        if isinstance(error, json.JSONDecodeError):
            reason = error.msg  # without the place, which is not that in the body
        elif isinstance(error, UnicodeDecodeError):
            reason = "it is not UTF-8"
        raise RequestError(400, f"the body is no JSON: {reason}; {_FORM}") from error
    if not isinstance(content, dict):
        raise RequestError(400, f"the JSON has no list `instances`: it is {describe(content)}; {_FORM}")
    if not isinstance(content.get("instances"), list):
        seen = describe(content["instances"]) if "instances" in content else _shown_keys(content)
        raise RequestError(400, f"the JSON has no list `instances` but {seen}; {_FORM}")
    if unknown := [key for key in content if key not in ("instances", *_IGNORED)]:
        raise RequestError(400, f"the JSON's key {unknown[0][:50]!r} is unknown; {_FORM}")
    instances = content["instances"]
    if not instances:
        raise RequestError(400, f"the list `instances` is empty; {_FORM}")
    if len(instances) > _LIMIT:
        raise RequestError(413, f"the request has {len(instances)} images, more than {_LIMIT}: send them in several")
    places = [strings[int(_check_instance(number, instance))] for number, instance in enumerate(instances)]
    return [_decode(number, body, *place) for number, place in enumerate(places)]


def _cut_out_strings(body: bytes, start: int) -> tuple[bytes, list[tuple[int, int]]]:
    """Return the JSON from `start` on with each string's number in its place, and where the strings begin and end."""
    pieces: list[bytes] = []
    strings: list[tuple[int, int]] = []
    size = 0
    while True:
        opening = body.find(b'"', start)
        end = len(body) if opening < 0 else opening
        size += end - start + _STRING_COST
        if size > _STRUCTURE:
            _refuse_structure(body[start : start + _STRUCTURE])
        pieces.append(body[start:end])
        if opening < 0:
            return b"".join(pieces), strings
        closing = _find_end(body, opening + 1)
        pieces.append(b'"%d"' % len(strings))
        strings.append((opening + 1, closing))
        start = closing + 1


def _refuse_structure(part: bytes) -> NoReturn:
    """Refuse JSON that has too much beside its strings, of which this is a part."""
    if part.count(b"[") + part.count(b"{") > _DEPTH + part.count(b"]") + part.count(b"}"):
        raise RequestError(400, f"the body is no JSON: it is nested too deeply; {_FORM}")
    much = f"the JSON has more than {_STRUCTURE} bytes beside its images"
    raise RequestError(413, f"{much}: it has arrays of pixels, or too many images; {_FORM}, at most {_LIMIT}")


def _find_end(body: bytes, start: int) -> int:
    """Return where the string ends that begins at `start`."""
    place = start
    for _ in range(_STRUCTURE):
        place = body.find(b'"', place)
        if place < 0:
            raise RequestError(400, f"the body is no JSON: a string is cut off; {_FORM}")
        before = body[max(start, place - _BACKSLASHES) : place]
        backslashes = len(before) - len(before.rstrip(b"\\"))
        if backslashes == _BACKSLASHES:
            break
        if backslashes % 2 == 0:
            return place
        place += 1
    raise RequestError(400, f"the JSON has a string that cannot be base64; {_FORM}")


def _read_name(body: bytes, start: int, end: int) -> str:
    """Read the name of an object's member."""
    if end - start > _NAME:
        raise ValueError(f"it has a name of {end - start} bytes")
    name: str = json.loads(body[start - 1 : end + 1], strict=False)
    return name


def _check_instance(number: int, instance: Any) -> str:
    """Return the number of the string that is an instance's image."""
    if isinstance(instance, dict) and list(instance) == ["b64"] and isinstance(instance["b64"], str):
        return instance["b64"]
    if not isinstance(instance, dict):
        seen = describe(instance)
    elif list(instance) == ["b64"]:
        seen = f"`b64` with {describe(instance['b64'])}"
    else:
        seen = _shown_keys(instance)
    raise RequestError(400, f'instances[{number}] is not {{"b64": "…"}} but {seen}; {_FORM}')


def _shown_keys(content: dict[str, Any]) -> str:
    return f"an object with the keys {', '.join(repr(key[:50]) for key in list(content)[:5]) or 'of none'}"


def _decode(number: int, body: bytes, start: int, end: int) -> bytes:
    """Decode an image's base64, also with line breaks, URL-safe letters or a `data:` prefix, and without padding."""
    first = start
    if prefix := _DATA_URL.match(body[start : min(end, start + _HEAD)]):
        if not prefix[1].lower().endswith(b";base64"):
            raise RequestError(400, f"instances[{number}] is a data URL without ;base64; {_FORM}")
        start += prefix.end()

    def refuse(reason: str) -> NoReturn:
        seen = file_types.name(body[first : min(end, first + _HEAD)])
        what = "" if seen.startswith(("base64", "a data: URL", "bytes", "text")) else f"; it looks like {seen}"
        raise RequestError(400, f"instances[{number}] is no base64: {reason}{what}; {_FORM}")

    while start < end and body[start] == _SPACE:
        start += 1
    while start < end and body[end - 1] == _SPACE:
        end -= 1
    image, rest, padding = io.BytesIO(), b"", 0
    while start < end:
        stop = _end_of_piece(body, start, end)
        piece = _plain(body[start:stop])
        if stray := piece.translate(None, _ALPHABET)[:1]:  # in a fiftieth of a regular expression's time
            place = piece.index(stray)
            shown = piece[place : place + 6].decode(errors="replace")
            hint = ", perhaps in place of +" if shown[0] == " " else ""
            refuse(f"it contains {shown if stray == _BACKSLASH else repr(shown[0])}{hint}")
        data = piece.rstrip(b"=")
        if data and (padding or b"=" in data):
            refuse("it goes on after its padding (=)")
        padding += len(piece) - len(data)
        data, start = rest + data, stop
        whole = len(data) - len(data) % 4
        image.write(binascii.a2b_base64(data[:whole]))
        rest = data[whole:]
    if len(rest) == 1 or padding not in (0, -len(rest) % 4):
        refuse("it is cut off, or its padding (=) is wrong")
    image.write(binascii.a2b_base64(rest + b"=" * (-len(rest) % 4)))
    if not image.tell():
        raise RequestError(400, f"instances[{number}] is empty; {_FORM}")
    return image.getvalue()


def _end_of_piece(body: bytes, start: int, end: int) -> int:
    """Return where to end the piece that begins at `start`: not within an escape."""
    stop = start + _PIECE
    if stop >= end:
        return end
    escape = max(body.rfind(b"\\", stop - 5, stop), body.rfind(b"%", stop - 2, stop))
    return stop if escape < 0 else escape


def _plain(text: bytes) -> bytes:
    """Return base64 in the standard's alphabet, without line breaks and escapes.

    Spaces stay, and are an error: a form that is decoded once too often makes them of +.
    """
    if (b"\\" in text or b"%" in text) and b"\\\\" not in text:
        for written, character in _ESCAPES.items():
            text = text.replace(written, character)
    return text.translate(_URL_SAFE, _LINE_BREAKS)


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
