"""The page on which a person tries the model (`SERVE_UI=1`): its files, what it is told of the model, its headers.

Its JavaScript asks the API as every other client does. A browser may load what this server gives, and nothing else.
"""

from __future__ import annotations

import json
import time
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from werkzeug.datastructures import MIMEAccept
from werkzeug.wrappers import Request, Response

from container.codecs.masks import voc_palette
from container.serve_settings import ServeSettings
from container.serving.admission import Overloaded
from container.serving.models import Model
from container.serving.request_log import Record

FILES = {
    "/": ("index.html", "text/html"),
    "/ui/page.css": ("page.css", "text/css"),
    "/ui/page.js": ("page.js", "text/javascript"),
    "/ui/answers.js": ("answers.js", "text/javascript"),
    "/ui/exif.js": ("exif.js", "text/javascript"),
    "/ui/picture.js": ("picture.js", "text/javascript"),
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
    """The page of one model, whose loading it outlasts; answers its own paths, and leaves all others alone."""

    def __init__(self, model: Future[Model], settings: ServeSettings) -> None:
        folder = Path(__file__).with_name("ui")
        self._model, self._settings = model, settings
        self._files = {path: ((folder / name).read_bytes(), media_type) for path, (name, media_type) in FILES.items()}

    def answer(self, request: Request) -> Response | None:
        """Answer with a file of the page, or with /ui/model.json; None for what is not the page's.

        At `/` only who likes HTML better than JSON is answered: browsers. Raises Overloaded (503) when the model is
        asked about before it is loaded.
        """
        if request.method not in ("GET", "HEAD"):
            return None
        if request.path == "/ui/model.json":
            if not self._model.done():
                raise Overloaded("the model is being loaded; try again", 1)
            told = json.dumps(describe(self._model.result(), self._settings), ensure_ascii=False)
            return Response(told + "\n", headers=HEADERS, mimetype="application/json")
        if request.path not in self._files or (request.path == "/" and not _is_browser(request.accept_mimetypes)):
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


def describe(model: Model, settings: ServeSettings) -> dict[str, Any]:
    """Describe the model to the page: each class with a name and a colour, the model's own where it has some."""
    entries = {label: model.classes.get(label) for label in range(model.engine.num_classes)}
    colors = voc_palette()
    classes = [
        {
            "id": label,
            "name": (entry and entry.name) or f"class {label}",
            "color": "#{:02x}{:02x}{:02x}".format(*((entry and entry.color) or colors[label])),
        }
        for label, entry in entries.items()
    ]
    return {
        "classes": classes,
        "palette": "data" if any(entry.color for entry in model.classes.values()) else "voc",
        "engine": settings.engine,
        "precision": model.engine.precision,
        "exif_orientation": settings.exif_orientation,
    }


def _is_browser(accept: MIMEAccept) -> bool:
    return accept.best_match(["application/json", "text/html"]) == "text/html"


def _server_timing(record: Record) -> str:
    """Write the phases' milliseconds as https://www.w3.org/TR/server-timing/ has them, the whole as `total`."""
    phases = {key[:-3]: value for key, value in record.facts.items() if key.endswith("_ms")}
    total = round((time.monotonic() - record.arrived) * 1000, 1)
    return ", ".join(f"{name};dur={value}" for name, value in {**phases, "total": total}.items())
