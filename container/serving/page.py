"""The web page (`SERVE_UI=1`): files, model information, headers.

Its JavaScript uses the API of the server. The headers allow a browser to load only files of this server.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from werkzeug.datastructures import MIMEAccept
from werkzeug.wrappers import Request, Response

from container.artifact.classes import ClassEntry
from container.codecs.masks import voc_palette
from container.serving.models import ModelInfo
from container.serving.requests.log import RequestRecord
from container.serving.settings import ServeSettings

FILES = {
    "/": ("index.html", "text/html"),
    "/ui/page.css": ("page.css", "text/css"),
    "/ui/page.js": ("page.js", "text/javascript"),
    "/ui/api.js": ("api.js", "text/javascript"),
    "/ui/exif.js": ("exif.js", "text/javascript"),
    "/ui/image_view.js": ("image_view.js", "text/javascript"),
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
    """The files of the web page."""

    def __init__(self) -> None:
        folder = Path(__file__).with_name("ui")
        self._files = {path: ((folder / name).read_bytes(), media_type) for path, (name, media_type) in FILES.items()}

    def serve_file(self, request: Request) -> Response | None:
        """Return a file of the page, or None; at `/`, return the page only to clients that prefer HTML to JSON."""
        if request.method not in ("GET", "HEAD") or request.path not in self._files:
            return None
        if request.path == "/" and not _is_browser(request.accept_mimetypes):
            return None
        content, media_type = self._files[request.path]
        return Response(content, headers=HEADERS, mimetype=media_type)

    def add_headers(self, request: Request, response: Any, record: RequestRecord) -> Any:
        """Add `Vary` to responses at `/`, and the durations of the phases to responses with a mask."""
        if request.path == "/":
            response.vary.add("Accept")
        elif request.path == "/invocations":
            response.headers["Server-Timing"] = _server_timing(record)
        return response


def page_info(info: ModelInfo, settings: ServeSettings) -> dict[str, Any]:
    """Describe the model for the page; classes without a name or color in the model get a default."""
    colors = voc_palette()
    classes = []
    for label in range(info.num_classes):
        entry = info.classes.get(label, ClassEntry())
        color = "#{:02x}{:02x}{:02x}".format(*(entry.color or colors[label]))
        classes.append({"id": label, "name": entry.name or f"class {label}", "color": color})
    return {
        "classes": classes,
        "palette": "data" if any(entry.color for entry in info.classes.values()) else "voc",  # of a saved mask
        "engine": settings.engine,
        "precision": info.precision,
        "exif_orientation": settings.exif_orientation,
    }


def _is_browser(accept: MIMEAccept) -> bool:
    return accept.best_match(["application/json", "text/html"]) == "text/html"


def _server_timing(record: RequestRecord) -> str:
    """Return the milliseconds of the phases, and `total`, as https://www.w3.org/TR/server-timing/ specifies."""
    phases = {key[:-3]: value for key, value in record.fields.items() if key.endswith("_ms")}
    total = round((time.monotonic() - record.arrived) * 1000, 1)
    return ", ".join(f"{name};dur={value}" for name, value in {**phases, "total": total}.items())
