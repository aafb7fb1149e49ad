"""Download of published weight files: resumable, with progress, verified by hash.

`python -m container.mx.weights.fetch resnet-50 resnet-101` downloads without converting, and needs only `requests` and
`tqdm`: an image's build begins with it, so that one without a way to the sources ends at once.

pooch would fetch and verify, too, but begins anew what broke off, and cannot take a hash that only the answer states.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

import requests
from tqdm import tqdm

from container.errors import ClientError
from container.mx.weights import zipped
from container.mx.weights.sources import BACKBONES, Source, address_of, remedies

_TIMEOUT = (10, 60)  # seconds until a connection stands, and between two pieces of the answer
_PIECE = 2**14  # bytes; at most so many are lost when a connection breaks off
_ATTEMPTS = 20  # connections, each of which has to bring something
_SHA256 = re.compile(r'^(?:W/)?"?([0-9a-f]{64})"?$')


class FetchError(Exception):
    """One source did not give the file; the text says why."""


def fetch(source: Source, directory: Path) -> Path:
    """Return the file of `source` in `directory`, fetched unless it is there, its hash checked.

    A download that broke off is resumed, in the same call while it gets on, or in the next. Raises FetchError.
    """
    target = directory / source.file
    part = target.with_name(f"{target.name}.part")
    directory.mkdir(parents=True, exist_ok=True)
    if target.is_file():
        try:
            _check(target, source.digest)
            return target
        except FetchError as error:
            _say(f"{target} is fetched again: {error}")
            target.unlink()
    resumed = part.exists()
    published = _download(address_of(source), part)
    try:
        _check(part, source.digest or published)
    except FetchError:
        part.unlink()
        if not resumed:
            raise
        published = _download(address_of(source), part)  # what was there may have been of another file
        _check(part, source.digest or published)
    if not source.digest and not published:
        _say(f"no hash of {source.file} is published: only its names and shapes can be checked")
    return part.rename(target)


def find_converted(backbone: str, directory: Path) -> Path | None:
    """Return `backbone`'s file in GluonCV's form in `directory`, GluonCV's own before a converted one; None without.

    Raises ClientError when its hash is not what its name says.
    """
    known = BACKBONES[backbone]
    found = sorted(directory.glob(f"{known.gluoncv}-????????.params"))
    found.sort(key=lambda path: path.stem.rpartition("-")[2] != known.sha1[:8])
    if not found:
        return None
    sha1, stated = zipped.digest(found[0], "sha1"), found[0].stem.rpartition("-")[2]
    if not sha1.startswith(known.sha1 if stated == known.sha1[:8] else stated):
        raise ClientError(
            f"{found[0]} is damaged: its SHA-1 is {sha1}, not what its name says; remove it, and get it again by "
            f"python -m container.mx.pretrained {backbone}"
        )
    return found[0]


def _download(address: str, part: Path) -> str:
    """Fetch `address` into `part`, after what is there; returns the hash that the answer states, or nothing."""
    _say(f"fetching {address}")
    for _ in range(_ATTEMPTS):
        before = part.stat().st_size if part.exists() else 0
        try:
            complete, published = _fetch_rest(address, part, before)
            if complete:
                return published
            reason = "the connection broke off"
        except requests.RequestException as error:
            reason = _short(error)
        after = part.stat().st_size if part.exists() else 0
        if after == before:
            raise FetchError(reason)
        _say(f"{reason}: resuming at {after} bytes")
    raise FetchError(f"{reason}, {_ATTEMPTS} times")


def _fetch_rest(address: str, part: Path, start: int) -> tuple[bool, str]:
    """Ask for the bytes from `start` on; returns whether all have come, and the stated hash."""
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    with requests.get(address, headers=headers, stream=True, timeout=_TIMEOUT) as answer:
        if answer.status_code == 416:  # nothing comes after `start`: the hash will tell whether it is all
            return True, _stated_hash(answer)
        answer.raise_for_status()
        if answer.status_code != 206 or not answer.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            start = 0
        length = int(answer.headers.get("Content-Length") or 0)
        total = start + length if length else None
        bar = tqdm(desc=part.name, total=total, initial=start, unit="B", unit_scale=True, leave=False, disable=None)
        with part.open("ab" if start else "wb") as file, bar:
            for piece in answer.iter_content(_PIECE):
                file.write(piece)
                bar.update(len(piece))
                if file.tell() > zipped.LARGEST:
                    part.unlink()
                    raise FetchError(f"it sends more than {zipped.LARGEST} bytes")
            return total is None or file.tell() >= total, _stated_hash(answer)


def _stated_hash(answer: requests.Response) -> str:
    """Return the SHA-256 that the hub states of a large file, in the answer that points to where it is stored."""
    for each in (*answer.history, answer):
        if found := _SHA256.match(each.headers.get("X-Linked-ETag", "")):
            return f"sha256:{found[1]}"
    return ""


def _check(path: Path, expected: str) -> None:
    """Raise FetchError unless the weights in `path` have the digest `expected`, if one is known."""
    if not expected:
        return
    algorithm, _, digest = expected.partition(":")
    try:
        found = zipped.digest(path, algorithm)
    except ClientError as error:
        raise FetchError(str(error)) from error
    if found != digest:
        raise FetchError(f"it sent other bytes: their {algorithm.upper()} is {found} instead of {digest}")


def _short(error: requests.RequestException) -> str:
    """Say in a few words what went wrong, the status first if there was one."""
    if error.response is not None:
        return f"it answered {error.response.status_code} {error.response.reason}"
    cause: BaseException = error
    while cause.__cause__ or cause.__context__:
        cause = cause.__cause__ or cause.__context__ or cause
    return f"{type(error).__name__}: {cause}"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def unfetched(backbone: str, reasons: dict[str, str]) -> str:
    """Say that no source gave the weights of `backbone`: each with its reason, and the ways that need no network."""
    listed = "".join(f"\n  {address}: {reason}" for address, reason in reasons.items())
    return f"the ImageNet weights of {backbone} could not be fetched:{listed}\nWithout a network: {remedies(backbone)}."


def main() -> None:
    """Fetch the named backbones' files, unless they are there, from the first source that gives each."""
    parser = argparse.ArgumentParser(description="Fetch published ImageNet weights, without converting them.")
    parser.add_argument("backbones", nargs="+", choices=list(BACKBONES), metavar="BACKBONE", help=", ".join(BACKBONES))
    parser.add_argument("--directory", type=Path, default=Path("pretrained"), help="where to put them (%(default)s)")
    arguments = parser.parse_args()
    for backbone in arguments.backbones:
        try:
            print(find_converted(backbone, arguments.directory) or _fetch_any(backbone, arguments.directory))
        except (ClientError, OSError) as error:
            raise SystemExit(f"{backbone}: {error}") from error


def _fetch_any(backbone: str, directory: Path) -> Path:
    reasons: dict[str, str] = {}
    for source in BACKBONES[backbone].sources:
        try:
            return fetch(source, directory)
        except FetchError as error:
            reasons[address_of(source)] = str(error)
    raise SystemExit(unfetched(backbone, reasons))


if __name__ == "__main__":
    main()
