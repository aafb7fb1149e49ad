"""Links, tables, and names in the pages match the program."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from container.schema import read_schema
from container.serving.settings import ServeSettings
from docs.render import render
from tests.conftest import PROGRAM
from tests.pages import PAGES, anchors, called, links, quoted, table_after

ARCHITECTURE = PROGRAM / "docs/architecture.md"
OPERATE = PROGRAM / "docs/operate.md"
TROUBLESHOOTING = PROGRAM / "docs/troubleshooting.md"
SOURCES = [*(PROGRAM / "container").rglob("*.py"), PROGRAM / "train", PROGRAM / "serve"]

# Strings that look like environment variables.
OTHER_NAMES = {
    *("BACKBONE", "SINGLE_RECORD", "SC_PAGE_SIZE", "SC_PHYS_PAGES"),
    *("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"),
    *(
        "CPU_RUNTIME_CACHE_CAPACITY",
        "LP_TRANSFORMS_MODE",
        "ENABLE_CPU_PINNING",
        "INFERENCE_NUM_THREADS",
        "INFERENCE_PRECISION_HINT",
    ),
    *("NUM_STREAMS", "OPTIMIZATION_CAPABILITIES"),
}


@pytest.mark.parametrize("page", PAGES, ids=called)
def test_every_link_has_a_target(page: Path) -> None:
    lost = []
    for address in links(page):
        parts = urlsplit(address)
        if parts.scheme:
            assert parts.scheme == "https" and "." in parts.netloc, address
            continue
        target = (page.parent / parts.path).resolve() if parts.path else page
        if not target.exists() or (parts.fragment and parts.fragment not in anchors(target)):
            lost.append(address)
    assert not lost


def test_every_page_is_reachable_from_the_readme() -> None:
    found, new = set(), {PROGRAM / "README.md"}
    while new:
        found |= new
        addresses = ((page, urlsplit(address)) for page in new for address in links(page))
        reached = {(page.parent / parts.path).resolve() for page, parts in addresses if not parts.scheme and parts.path}
        new = {path for path in reached if path.suffix == ".md"} - found
    missing = {page for page in PAGES if page not in found} - {PROGRAM / "pretrained/README.md"}
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=called)
def test_page_has_no_placeholder(page: Path) -> None:
    code = re.compile(r"(?ms)^```.*?^```|`[^`\n]+`|\]\([^)\s]+\)")
    assert not re.findall(r"@@|\bTODO\b|\b[A-Z]{3,}_[A-Z_]+\b", code.sub("", page.read_text(encoding="utf-8")))


def test_readme_is_short() -> None:
    text = (PROGRAM / "README.md").read_text()
    assert len(text.splitlines()) <= 110
    assert len(re.findall(r"!\[[^\]]+\]\(", text)) == 2


@pytest.mark.parametrize("page", [page for page in PAGES if "<!-- rendered by:" in page.read_text()], ids=called)
def test_rendered_part_equals_its_source(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    if "docs.notices" in text and sys.version_info[:2] != (3, 11):
        pytest.skip("the table lists the packages for Python 3.11 of the container images")
    assert render(text) == text, "run make docs to render it again"


def test_every_group_of_hyperparameters_is_rendered() -> None:
    groups = {entry["x-group"] for entry in read_schema()["properties"].values()}
    text = (PROGRAM / "docs/hyperparameters.md").read_text(encoding="utf-8")
    assert set(re.findall(r'<!-- rendered by: .+ -m container.hyperparameters "(.+)" -->', text)) == groups


def strings(tree: ast.AST) -> set[str]:
    return {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}


def test_every_environment_variable_is_documented() -> None:
    name = re.compile(r"[A-Z][A-Z0-9]+(_[A-Z0-9]+)+|TMPDIR")
    read = {text for path in SOURCES for text in strings(ast.parse(path.read_text())) if name.fullmatch(text)}
    documented = {text for text in quoted(OPERATE.read_text()) if name.fullmatch(text)}
    assert read - OTHER_NAMES == documented


def test_default_of_every_server_variable_is_documented() -> None:
    rows = table_after(OPERATE, "<!-- tested: variables of serve -->")
    documented = {name: default for names, default, _ in rows for name in quoted(names)}
    settings = ServeSettings.read({})
    assert documented["SAGEMAKER_BASE_DIR"] == f"`{settings.model_dir.parent}`"
    for name, value in {
        "SAGEMAKER_BIND_TO_PORT": settings.port,
        "SAGEMAKER_MODEL_SERVER_TIMEOUT": settings.timeout,
        "MAX_PIXELS": settings.max_pixels,
        "MAX_CONTENT_LENGTH": settings.max_body,
        "MAX_RESPONSE_BYTES": settings.max_response,
        "SERVE_PRECISION": settings.precision,
        "EXIF_ORIENTATION": settings.exif_orientation,
        "LOG_FORMAT": settings.log_format,
        "SERVE_UI": int(settings.ui),
        "SERVE_METRICS": int(settings.metrics),
    }.items():
        assert documented[name] == str(value).lower(), name


def text_of(part: ast.expr) -> str:
    """Return a part of an f-string: a constant, the first of two alternatives, or an ellipsis for a value."""
    if isinstance(part, ast.FormattedValue) and isinstance(part.value, ast.IfExp):
        part = part.value.body
    return str(part.value) if isinstance(part, ast.Constant) else "…"


def messages() -> str:
    """Return all strings of the program, one per line."""
    nodes = [node for path in SOURCES for node in ast.walk(ast.parse(path.read_text()))]
    joined = ["".join(map(text_of, node.values)) for node in nodes if isinstance(node, ast.JoinedStr)]
    return "\n".join([*joined, *(str(node.value) for node in nodes if isinstance(node, ast.Constant))])


def test_documented_error_messages_exist() -> None:
    text = "\n" + messages()
    rows = table_after(TROUBLESHOOTING, "The most common messages:")
    assert len(rows) > 10
    unknown = [row[0] for row in rows if not all(f"\n{message}" in text for message in quoted(row[0]))]
    assert not unknown


def test_every_status_of_the_server_is_documented() -> None:
    sources = "\n".join(path.read_text() for path in (PROGRAM / "container/serving").rglob("*.py"))
    returned = {*re.findall(r"RequestError\(\s*(\d{3})", sources), *re.findall(r'\b([45]\d\d), "[A-Z]', sources)}
    returned = returned - {"499"} | {"404", "405", "500", "503"}  # 499 is only logged; Flask returns the next two
    assert {row[0] for row in table_after(TROUBLESHOOTING, "## The endpoint returns an error")} == returned
    request = ARCHITECTURE.read_text().partition("**Request.**")[2].partition("## Modules")[0]
    assert set(re.findall(r"\b[45]\d\d\b", request)) == returned | {"499"}


@pytest.mark.parametrize("page", [ARCHITECTURE, PROGRAM / "CONTRIBUTING.md"], ids=called)
def test_every_module_in_the_text_exists(page: Path) -> None:
    text = page.read_text().partition("## Modules")[0]
    names = {name for name in re.findall(r"`([a-z_0-9/]+\.py)`", text)}
    roots = (PROGRAM, PROGRAM / "container", PROGRAM / "container/serving")
    missing = {name for name in names if not any((root / name).is_file() for root in roots)}
    assert names and not missing
