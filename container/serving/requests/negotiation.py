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

_NO_VALUE = re.compile(r";\s*tta\s*(?:=\s*)?(?=[;,]|$)", re.IGNORECASE)  # which the parser would pass over
_WEIGHT = re.compile(r"0(\.[0-9]*)?|\.[0-9]+|1(\.0*)?")
_BARE_POINT = re.compile(r"(;[ \t]*q=[01])\.(?![0-9])", re.IGNORECASE)  # valid, but the parser ignores such a range
_BARE_FRACTION = re.compile(r"(;[ \t]*q=)(?=\.[0-9])", re.IGNORECASE)  # invalid, but the default of Java's client
_TOKEN = r"[\w!#$%&'*+.^`|~-]+"
_QUOTED = r'"(?:[^"\\]|\\.)*"'
_PARAMETERS = re.compile(rf"[ \t]*(?:;[ \t]*(?:{_TOKEN}=(?:{_TOKEN}|{_QUOTED})[ \t]*)?)*", re.ASCII)
# a word that no slash follows is no media range
_BARE_LIST = re.compile(r"(;\s*tta=)([\w-]+(?:\s*,\s*[\w-]+(?![\w/*+.-]))+)", re.IGNORECASE)

_ACCEPT_LENGTH = 1024  # a browser's has 100 to 200 characters


def read_accept(header: str) -> MIMEAccept:
    """Read an Accept header, in which `tta=flip,scales` needs no quotes, though a comma would end the media range.

    RFC 9110 does not define what an invalid weight (`q=abc`) means. To ignore the range would select another format
    than the client wants, so it is an error, and so are parameters without a readable value. Raises RequestError 406
    for these, and for a header that is too long.
    """
    if len(header) > _ACCEPT_LENGTH:
        raise RequestError(406, f"Accept has {len(header)} characters, more than {_ACCEPT_LENGTH}: name fewer types")
    if _NO_VALUE.search(header):
        raise RequestError(406, f"Accept: tta has no value: give {WAYS_LISTED}, or leave it out")
    if re.sub(r"\\.", "", header).count('"') % 2:  # the parser would drop the range
        raise RequestError(406, 'Accept: a parameter has no value that can be read: a quotation mark (") is missing')
    for item in parse_list_header(header):
        for parameter in item.split(";")[1:]:
            name, _, weight = parameter.partition("=")
            if name.strip().lower() == "q" and not _WEIGHT.fullmatch(weight.strip(' \t"')):
                given = f"q={weight.strip()[:20]}"
                raise RequestError(406, f"Accept: {given} is not a weight; give q a value from 0 to 1, such as q=0.5")
        _check_syntax(item)
    header = _BARE_FRACTION.sub(r"\g<1>0", _BARE_POINT.sub(r"\1", header))
    accept: MIMEAccept = parse_accept_header(_BARE_LIST.sub(r'\1"\2"', header), MIMEAccept)
    return accept


def _check_syntax(item: str) -> None:
    """Raise RequestError 406 for parameters that the parser would drop from a media range that this server has."""
    given = item.partition(";")[0]
    name = given.strip().lower()
    if "=" in name and "/" not in name:
        raise RequestError(406, f"Accept: {name[:50]} is not a media type; put a semicolon before a parameter")
    if (name in ENCODERS or name.endswith("/*")) and not _PARAMETERS.fullmatch(item, len(given)):
        example = "application/x-npy; top_k=1; dtype=float16"
        raise RequestError(406, f"Accept: a parameter of {name} has no value that can be read; write {example}")


def choose_media_type(accept: MIMEAccept, default: str = "image/png") -> tuple[str, Mapping[str, str]]:
    """Return the media type that the client likes best, with its parameters; `default` when it does not care.

    The most specific range that covers a type decides on its quality; of several ranges of one type, which differ in
    their parameters, the one with the highest quality counts. Raises RequestError 406 when nothing that is offered is
    wanted.
    """
    ranges: dict[str, tuple[float, Mapping[str, str]]] = {}
    for value, quality in accept:
        name, options = parse_options_header(value.lower())
        name = "*/*" if name == "*" else name  # Java's client sends both
        if name not in ranges or quality > ranges[name][0]:
            ranges[name] = (quality, options)
    order = list(ranges)
    ranked = []
    for media_type in sorted(ENCODERS, key=lambda media_type: media_type != default):
        covering = (media_type, media_type.partition("/")[0] + "/*", "*/*")
        found = next((entry for entry in covering if entry in ranges), None)
        if found and ranges[found][0] > 0:
            ranked.append((ranges[found][0], -covering.index(found), -order.index(found), media_type, found))
    if ranked:
        *_, media_type, found = max(ranked, key=lambda rank: rank[:3])
        return media_type, ranges[found][1]
    if ranges:
        raise RequestError(406, f"Accept: {accept.to_header()} is not available; ask for one of {', '.join(ENCODERS)}")
    return default, {}


def wants_gzip(accept: Accept, compression: Compression) -> bool:
    """Say whether the answer is to be compressed: gzip is asked for, and liked no less than the answer as it is.

    HTTP clients ask for `gzip, deflate` by themselves. What gzip hardly makes smaller is compressed only for those that
    ask for gzip alone, and so mean it, or refuse the answer as it is. Accept-Encoding alone decides, as `Vary` says.
    """
    qualities = {value.lower(): quality for value, quality in accept}
    identity = qualities.pop("identity", None)
    if compression == "never" or not 0 < qualities.get("gzip", 0) >= (identity or 0):
        return False
    refused = identity == 0 or (identity is None and qualities.get("*") == 0)
    return compression == "asked" or refused or {name for name, quality in qualities.items() if quality} == {"gzip"}
