"""The page of `SERVE_UI=1`: who gets it, under which headers, and what it is told of the model."""

from __future__ import annotations

import dataclasses
import re
from concurrent.futures import Future
from html.parser import HTMLParser
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from container.artifact.classes import ClassEntry
from container.serving import page
from container.serving.app import create_app
from container.serving.models import Model, create_model
from tests.unit.serving.test_serving import SETTINGS, FakeEngine, error_of, invoke, loaded, picture

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
WITH_PAGE = dataclasses.replace(SETTINGS, ui=True)
FOLDER = Path(page.__file__).with_name("ui")


@pytest.fixture
def client() -> FlaskClient:
    return create_app(loaded(FakeEngine(), {1: ClassEntry("cat", (10, 20, 30))}), WITH_PAGE).test_client()


@pytest.mark.parametrize("accept", [BROWSER, "text/html", "application/json;q=0.5, text/html"])
def test_a_browser_gets_the_page(client: FlaskClient, accept: str) -> None:
    answer = client.get("/", headers={"Accept": accept})
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert answer.data == (FOLDER / "index.html").read_bytes()
    assert answer.headers["Content-Security-Policy"] == POLICY
    assert (answer.headers["X-Content-Type-Options"], answer.headers["Vary"]) == ("nosniff", "Accept")


@pytest.mark.parametrize("accept", ["application/json", "*/*", None, "text/html;q=0.5, application/json"])
def test_a_program_does_not(client: FlaskClient, accept: str | None) -> None:
    answer = client.get("/", headers={} if accept is None else {"Accept": accept})
    assert (answer.mimetype, answer.headers["Vary"]) == ("application/json", "Accept")


def test_every_file_of_the_page_is_served_with_its_type(client: FlaskClient) -> None:
    types = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
    for path in FOLDER.iterdir():
        if path.name != "index.html":
            answer = client.get(f"/ui/{path.name}")
            assert (answer.data, answer.mimetype) == (path.read_bytes(), types[path.suffix])
            assert answer.headers["Content-Security-Policy"] == POLICY
    assert client.head("/ui/page.js").data == b""


@pytest.mark.parametrize("path", ["/ui/", "/ui/index.html", "/ui/../app.py", "/ui/%2e%2e/app.py", "/ui/page.py"])
def test_nothing_else_is(client: FlaskClient, path: str) -> None:
    assert client.get(path).status_code == 404


def test_page_is_disabled_by_default() -> None:
    client = create_app(loaded(FakeEngine()), SETTINGS).test_client()
    assert client.get("/", headers={"Accept": BROWSER}).mimetype == "application/json"
    assert [client.get(path).status_code for path in ("/ui/page.js", "/ui/model.json")] == [404, 404]
    assert "Server-Timing" not in invoke(client).headers


def test_page_info_contains_class_names_and_colors(client: FlaskClient) -> None:
    assert client.get("/ui/model.json").json == {
        "classes": [{"id": 0, "name": "class 0", "color": "#000000"}, {"id": 1, "name": "cat", "color": "#0a141e"}],
        "palette": "data",
        "engine": "openvino",
        "precision": "float32",
        "exif_orientation": "ignore",
    }
    settings = dataclasses.replace(WITH_PAGE, exif_orientation="apply")
    told = create_app(loaded(FakeEngine(), {1: ClassEntry("")}), settings).test_client().get("/ui/model.json").json
    assert told["classes"][1] == {"id": 1, "name": "class 1", "color": "#800000"}  # Pascal VOC's second color
    assert (told["palette"], told["exif_orientation"]) == ("voc", "apply")


def test_it_is_there_while_the_model_is_being_loaded() -> None:
    model: Future[Model] = Future()
    client = create_app(model, WITH_PAGE).test_client()
    assert client.get("/", headers={"Accept": BROWSER}).status_code == 200
    answer = client.get("/ui/model.json")
    assert (answer.status_code, error_of(answer)) == (503, "The server is loading the model. Try again.")
    model.set_result(create_model(FakeEngine(), {}))
    assert client.get("/ui/model.json").status_code == 200


def test_an_answer_tells_the_milliseconds_of_its_phases(client: FlaskClient) -> None:
    timing = invoke(client, picture(90, 90)).headers["Server-Timing"]
    names, durations = zip(*re.findall(r"(\w+);dur=([\d.]+)", timing), strict=True)
    assert names == ("read", "queue", "decode", "inference", "encode", "total")
    assert sum(map(float, durations[:-1])) <= float(durations[-1]) + 0.5
    refused = invoke(client, b"no image").headers["Server-Timing"]
    assert re.fullmatch(r"read;dur=[\d.]+, total;dur=[\d.]+", refused)


def test_the_page_holds_no_script_or_style_of_its_own_and_nothing_from_elsewhere() -> None:
    found: list[tuple[str, dict[str, str | None]]] = []

    class Parser(HTMLParser):
        def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
            found.append((tag, dict(attributes)))

    Parser().feed((FOLDER / "index.html").read_text())
    for tag, attributes in found:
        assert tag != "style" and (tag != "script" or attributes.get("src")), tag
        assert not [name for name in attributes if name == "style" or name.startswith("on")], attributes
    loaded_files = {value for _, attributes in found for name in ("src", "href") if (value := attributes.get(name))}
    assert loaded_files == {"ui/icon.svg", "ui/page.css", "ui/page.js"}
