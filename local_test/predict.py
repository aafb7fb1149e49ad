"""Send an image to a running endpoint, and write the mask in colors and as an overlay."""

from __future__ import annotations

import argparse
import io
import sys
import urllib.error
import urllib.request
from pathlib import Path

from PIL import Image

from local_test.overlay import color_mask, draw_overlay, read_class_names

_TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg"}


def ping(endpoint: str) -> bool:
    """Return whether the health check of the endpoint succeeds."""
    try:
        with _open(urllib.request.Request(f"{endpoint}/ping"), timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def ask(endpoint: str, photo: bytes, content_type: str) -> bytes:
    """Send an image and return the mask as PNG; raises OSError with the error message of the server."""
    headers = {"Content-Type": content_type, "Accept": "image/png"}
    try:
        with _open(urllib.request.Request(f"{endpoint}/invocations", photo, headers), timeout=60) as answer:
            return bytes(answer.read())
    except urllib.error.HTTPError as error:
        reason = error.read().decode(errors="replace").strip()
        raise OSError(f"{endpoint} returned HTTP {error.code}: {reason}") from error
    except OSError as error:
        raise OSError(f"{endpoint} does not respond ({error}). Start local_test/serve_local.sh") from error


def main() -> None:
    """Write NAME_mask.png and NAME_overlay.png for one image, or only check the health of the endpoint."""
    parser = argparse.ArgumentParser(prog="python -m local_test.predict", description=__doc__)
    parser.add_argument("photo", type=Path, nargs="?", help="a JPEG or PNG file; default: only call /ping")
    parser.add_argument("content_type", nargs="?", help="content type; default: from the file name")
    parser.add_argument("--endpoint", default="http://localhost:8080", help="URL of the server (%(default)s)")
    parser.add_argument("--output", type=Path, default=Path(), metavar="DIR", help="directory for the images")
    parser.add_argument("--classes", type=Path, metavar="JSON", help="classes.json, or a list of names")
    arguments = parser.parse_args()
    if arguments.photo is None:
        sys.exit(0 if ping(arguments.endpoint) else 1)
    try:
        for path in _predict(arguments):
            print(path)
    except OSError as error:
        sys.exit(f"predict: {error}")


def _predict(arguments: argparse.Namespace) -> tuple[Path, Path]:
    photo: Path = arguments.photo
    content_type = arguments.content_type or _TYPES.get(photo.suffix.lower(), "application/x-image")
    data = photo.read_bytes()
    mask = Image.open(io.BytesIO(ask(arguments.endpoint, data, content_type)))
    classes = read_class_names(arguments.classes) if arguments.classes else ()
    arguments.output.mkdir(parents=True, exist_ok=True)
    paths = arguments.output / f"{photo.stem}_mask.png", arguments.output / f"{photo.stem}_overlay.png"
    color_mask(mask).save(paths[0])
    draw_overlay(Image.open(io.BytesIO(data)), mask, classes).save(paths[1])
    return paths


def _open(request: urllib.request.Request, timeout: float):  # type: ignore[no-untyped-def]  # its type has no name
    """Open without a proxy, because the server is local."""
    return urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=timeout)


if __name__ == "__main__":
    main()
