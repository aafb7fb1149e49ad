"""The `Accept` and `Accept-Encoding` headers."""

from __future__ import annotations

import re
from collections.abc import Mapping

from werkzeug.datastructures import Accept, MIMEAccept
from werkzeug.http import parse_accept_header, parse_list_header, parse_options_header

from container.codecs.probabilities import Compression
from container.codecs.response_formats import ENCODERS
from container.engines.tta import WAYS_LISTED
from container.errors import RequestError

_NO_VALUE = re.compile(r";\s*tta\s*(?:=\s*)?(?=[;,]|$)", re.IGNORECASE)  # the parser would ignore it
_WEIGHT = re.compile(r"0(\.[0-9]*)?|\.[0-9]+|1(\.0*)?")
_BARE_POINT = re.compile(r"(;[ \t]*q=[01])\.(?![0-9])", re.IGNORECASE)  # valid, but the parser ignores such a range
_BARE_FRACTION = re.compile(r"(;[ \t]*q=)(?=\.[0-9])", re.IGNORECASE)  # invalid, but the default of the Java client
_TOKEN = r"[\w!#$%&'*+.^`|~-]+"
_QUOTED = r'"(?:[^"\\]|\\.)*"'
_PARAMETERS = re.compile(rf"[ \t]*(?:;[ \t]*(?:{_TOKEN}=(?:{_TOKEN}|{_QUOTED})[ \t]*)?)*", re.ASCII)
# a word without a slash is not a media range
_BARE_LIST = re.compile(r"(;\s*tta=)([\w-]+(?:\s*,\s*[\w-]+(?![\w/*+.-]))+)", re.IGNORECASE)

_ACCEPT_LENGTH = 1024  # browsers send 100 to 200 characters


def read_accept(header: str) -> MIMEAccept:
    """Parse an `Accept` header; `tta=flip,scales` needs no quotes, although a comma ends a media range.

    RFC 9110 does not define what an invalid weight (`q=abc`) means. To ignore the range would select another format
    than the client wants, so it is an error, and so are parameters without a readable value. Raises RequestError 406
    for these, and for a header that is too long.
    """
    if len(header) > _ACCEPT_LENGTH:
        raise RequestError(406, f"Accept has {len(header)} characters, more than {_ACCEPT_LENGTH}: list fewer types")
    if _NO_VALUE.search(header):
        raise RequestError(406, f"Accept: tta has no value: set it to {WAYS_LISTED}, or omit it")
    if re.sub(r"\\.", "", header).count('"') % 2:  # the parser would drop the range
        raise RequestError(406, 'Accept: a parameter has no value that can be read: a quotation mark (") is missing')
    for item in parse_list_header(header):
        for parameter in item.split(";")[1:]:
            name, _, weight = parameter.partition("=")
            if name.strip().lower() == "q" and not _WEIGHT.fullmatch(weight.strip(' \t"')):
                received = f"q={weight.strip()[:20]}"
                raise RequestError(
                    406, f"Accept: {received} is not a weight; set q to a value from 0 to 1, such as q=0.5"
                )
        _check_syntax(item)
    header = _BARE_FRACTION.sub(r"\g<1>0", _BARE_POINT.sub(r"\1", header))
    accept: MIMEAccept = parse_accept_header(_BARE_LIST.sub(r'\1"\2"', header), MIMEAccept)
    return accept


def _check_syntax(item: str) -> None:
    """Raise RequestError 406 for parameters that the parser would remove from an available media range."""
    media_range = item.partition(";")[0]
    name = media_range.strip().lower()
    if "=" in name and "/" not in name:
        raise RequestError(406, f"Accept: {name[:50]} is not a media type; put a semicolon before a parameter")
    if (name in ENCODERS or name.endswith("/*")) and not _PARAMETERS.fullmatch(item, len(media_range)):
        example = "application/x-npy; top_k=1; dtype=float16"
        raise RequestError(406, f"Accept: a parameter of {name} has no value that can be read; write {example}")


def choose_media_type(accept: MIMEAccept, default: str = "image/png") -> tuple[str, Mapping[str, str]]:
    """Return the media type with the highest quality, with its parameters; `default` if the header has no preference.

    The most specific range that matches a type determines its quality. Of several ranges of one type with different
    parameters, the range with the highest quality is used. Raises RequestError 406 if no available type is accepted.
    """
    ranges: dict[str, tuple[float, Mapping[str, str]]] = {}
    for value, quality in accept:
        name, options = parse_options_header(value.lower())
        name = "*/*" if name == "*" else name  # the Java client sends both
        if name not in ranges or quality > ranges[name][0]:
            ranges[name] = (quality, options)
    order = list(ranges)
    ranked = []
    for media_type in sorted(ENCODERS, key=lambda media_type: media_type != default):
        matching = (media_type, media_type.partition("/")[0] + "/*", "*/*")
        best = next((entry for entry in matching if entry in ranges), None)
        if best and ranges[best][0] > 0:
            ranked.append((ranges[best][0], -matching.index(best), -order.index(best), media_type, best))
    if ranked:
        *_, media_type, best = max(ranked, key=lambda rank: rank[:3])
        return media_type, ranges[best][1]
    if ranges:
        raise RequestError(406, f"Accept: {accept.to_header()} is not available; request one of {', '.join(ENCODERS)}")
    return default, {}


def wants_gzip(accept: Accept, compression: Compression) -> bool:
    """Return whether to compress the response: the client accepts gzip, and does not prefer the uncompressed response.

    HTTP clients send `gzip, deflate` by default. Formats that gzip hardly reduces are compressed only if gzip is the
    only accepted encoding, or if the uncompressed response is not accepted.
    """
    qualities = {value.lower(): quality for value, quality in accept}
    identity = qualities.pop("identity", None)
    if compression == "never" or not 0 < qualities.get("gzip", 0) >= (identity or 0):
        return False
    is_required = identity == 0 or (identity is None and qualities.get("*") == 0)
    return compression == "asked" or is_required or {name for name, quality in qualities.items() if quality} == {"gzip"}
