"""Download of published weight files: resumable, with progress, verified by hash.

`python -m container.mx.weights.fetch resnet-50 resnet-101` downloads without converting, and needs only `requests` and
`tqdm`. The build of a container image starts with this step, so that a build without access to the sources fails early.

pooch can also download and verify, but it does not resume a download, and does not use a hash from the response.
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

_TIMEOUT = (10, 60)  # seconds to connect, and between two reads of the response
_PIECE = 2**14  # bytes per write, which is the largest loss if the connection breaks
_ATTEMPTS = 20  # connections; each must receive some bytes
_SHA256 = re.compile(r'^(?:W/)?"?([0-9a-f]{64})"?$')


class FetchError(Exception):
    """The download from one source failed. The text is the reason."""


def fetch(source: Source, directory: Path) -> Path:
    """Return the file of `source` in `directory` after checking its hash; downloads it if it does not exist.

    An interrupted download is resumed in the same call if it makes progress, and otherwise in the next call. Raises
    FetchError.
    """
    target = directory / source.file
    part = target.with_name(f"{target.name}.part")
    directory.mkdir(parents=True, exist_ok=True)
    if target.is_file():
        try:
            _check(target, source.digest)
            return target
        except FetchError as error:
            _say(f"Downloading {target} again: {error}")
            target.unlink()
    resumed = part.exists()
    published = _download(address_of(source), part)
    try:
        _check(part, source.digest or published)
    except FetchError:
        part.unlink()
        if not resumed:
            raise
        published = _download(address_of(source), part)  # the existing part can belong to another file
        _check(part, source.digest or published)
    if not source.digest and not published:
        _say(f"No hash of {source.file} is published. Only the names and shapes are checked.")
    return part.rename(target)


def find_converted(backbone: str, directory: Path) -> Path | None:
    """Return the weight file of `backbone` in the GluonCV format in `directory`, or None if it does not exist.

    A file from GluonCV has precedence over a converted file. Raises ClientError if the hash differs from that in the
    file name.
    """
    known = BACKBONES[backbone]
    found = sorted(directory.glob(f"{known.gluoncv}-????????.params"))
    found.sort(key=lambda path: path.stem.rpartition("-")[2] != known.sha1[:8])
    if not found:
        return None
    sha1, stated = zipped.digest(found[0], "sha1"), found[0].stem.rpartition("-")[2]
    if not sha1.startswith(known.sha1 if stated == known.sha1[:8] else stated):
        raise ClientError(
            f"{found[0]} is corrupt: its SHA-1 is {sha1}, which differs from that in its name. Remove the file, and "
            f"download it again with python -m container.mx.pretrained {backbone}."
        )
    return found[0]


def _download(address: str, part: Path) -> str:
    """Download `address` and append it to `part`; returns the hash from the response, or an empty string."""
    _say(f"Downloading {address}")
    for _ in range(_ATTEMPTS):
        before = part.stat().st_size if part.exists() else 0
        try:
            complete, published = _fetch_rest(address, part, before)
            if complete:
                return published
            reason = "the connection was closed early"
        except requests.RequestException as error:
            reason = _short(error)
        after = part.stat().st_size if part.exists() else 0
        if after == before:
            raise FetchError(reason)
        _say(f"Resuming the download at {after} bytes: {reason}")
    raise FetchError(f"{reason} ({_ATTEMPTS} attempts)")


def _fetch_rest(address: str, part: Path, start: int) -> tuple[bool, str]:
    """Download the bytes from `start`; returns whether the file is complete, and the hash from the response."""
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    with requests.get(address, headers=headers, stream=True, timeout=_TIMEOUT) as answer:
        if answer.status_code == 416:  # no bytes after `start`; the hash shows whether the file is complete
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
                    raise FetchError(f"the server sends more than {zipped.LARGEST} bytes")
            return total is None or file.tell() >= total, _stated_hash(answer)


def _stated_hash(answer: requests.Response) -> str:
    """Return the SHA-256 of a large file from the response of Hugging Face that redirects to its storage."""
    for each in (*answer.history, answer):
        if found := _SHA256.match(each.headers.get("X-Linked-ETag", "")):
            return f"sha256:{found[1]}"
    return ""


def _check(path: Path, expected: str) -> None:
    """Raise FetchError if a digest is `expected` and the weights in `path` have another one."""
    if not expected:
        return
    algorithm, _, digest = expected.partition(":")
    try:
        found = zipped.digest(path, algorithm)
    except ClientError as error:
        raise FetchError(str(error)) from error
    if found != digest:
        raise FetchError(f"the server sent another file: its {algorithm.upper()} is {found} instead of {digest}")


def _short(error: requests.RequestException) -> str:
    """Describe an error in a few words: the HTTP status if there is one, or else the exception."""
    if error.response is not None:
        return f"the server returned {error.response.status_code} {error.response.reason}"
    cause: BaseException = error
    while cause.__cause__ or cause.__context__:
        cause = cause.__cause__ or cause.__context__ or cause
    return f"{type(error).__name__}: {cause}"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def unfetched(backbone: str, reasons: dict[str, str]) -> str:
    """Return the error message if all downloads failed: the reason per source, and the fixes without a network."""
    listed = "".join(f"\n  {address}: {reason}" for address, reason in reasons.items())
    return f"the ImageNet weights of {backbone} could not be downloaded:{listed}\n{remedies(backbone)}"


def main() -> None:
    """Download the files of the backbones that do not exist, each from the first source that works."""
    parser = argparse.ArgumentParser(description="Download published ImageNet weights, without converting them.")
    parser.add_argument("backbones", nargs="+", choices=list(BACKBONES), metavar="BACKBONE", help=", ".join(BACKBONES))
    parser.add_argument("--directory", type=Path, default=Path("pretrained"), help="target directory (%(default)s)")
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
