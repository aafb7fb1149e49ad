"""The web page (`SERVE_UI=1`): files, model information, headers.

Its JavaScript asks the API as every other client does. A browser may load what this server gives, and nothing else.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from werkzeug.datastructures import MIMEAccept
from werkzeug.wrappers import Request, Response

from container.artifact.classes import ClassEntry
from container.codecs.masks import voc_palette
from container.serving.requests.log import Record
from container.serving.settings import ServeSettings

FILES = {
    "/": ("index.html", "text/html"),
    "/ui/page.css": ("page.css", "text/css"),
    "/ui/page.js": ("page.js", "text/javascript"),
    "/ui/answers.js": ("answers.js", "text/javascript"),
    "/ui/exif.js": ("exif.js", "text/javascript"),
    "/ui/picture.js": ("picture.js", "text/javascript"),
    "/ui/tables.js": ("tables.js", "text/javascript"),
    "/ui/icon.svg": ("icon.svg", "image/svg+xml"),
}
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


class Page:
    """The page's files; answers for them, and leaves all else alone."""

    def __init__(self) -> None:
        folder = Path(__file__).with_name("ui")
        self._files = {path: ((folder / name).read_bytes(), media_type) for path, (name, media_type) in FILES.items()}

    def answer(self, request: Request) -> Response | None:
        """Answer with a file of the page, at `/` to those who like HTML better than JSON: browsers; else None."""
        if request.method not in ("GET", "HEAD") or request.path not in self._files:
            return None
        if request.path == "/" and not _is_browser(request.accept_mimetypes):
            return None
        content, media_type = self._files[request.path]
        return Response(content, headers=HEADERS, mimetype=media_type)

    def finish(self, request: Request, response: Any, record: Record) -> Any:
        """Add to an answer what the page needs: at `/` that it depends on Accept, to an image's the phases' times."""
        if request.path == "/":
            response.vary.add("Accept")
        elif request.path == "/invocations":
            response.headers["Server-Timing"] = _server_timing(record)
        return response


def page_info(
    num_classes: int, precision: str, known: Mapping[int, ClassEntry], settings: ServeSettings
) -> dict[str, Any]:
    """Describe a model to the page: each class with a name and a color, the model's own where it has some."""
    colors = voc_palette()
    classes = []
    for label in range(num_classes):
        entry = known.get(label, ClassEntry())
        color = "#{:02x}{:02x}{:02x}".format(*(entry.color or colors[label]))
        classes.append({"id": label, "name": entry.name or f"class {label}", "color": color})
    return {
        "classes": classes,
        "palette": "data" if any(entry.color for entry in known.values()) else "voc",  # for a mask to be saved
        "engine": settings.engine,
        "precision": precision,
        "exif_orientation": settings.exif_orientation,
    }


def _is_browser(accept: MIMEAccept) -> bool:
    return accept.best_match(["application/json", "text/html"]) == "text/html"


def _server_timing(record: Record) -> str:
    """Write the phases' milliseconds as https://www.w3.org/TR/server-timing/ has them, the whole as `total`."""
    phases = {key[:-3]: value for key, value in record.facts.items() if key.endswith("_ms")}
    total = round((time.monotonic() - record.arrived) * 1000, 1)
    return ", ".join(f"{name};dur={value}" for name, value in {**phases, "total": total}.items())
