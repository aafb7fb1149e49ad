"""The report's page in a browser: it fits a phone, takes the colors of day and night, and has no error."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from container.training.report.page import render_page
from tests.unit.serving.test_page import content

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium: apt-get install chromium")


def browse(folder: Path, address: Path, *options: str) -> tuple[str, str]:
    """Open a page; returns what it came to, and what the console said."""
    command = [
        str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
        "--allow-file-access-from-files", "--enable-logging=stderr", f"--user-data-dir={folder / 'profile'}",
        *options, address.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)


def write_page(folder: Path) -> Path:
    path = folder / "report.html"
    path.write_text(render_page(content(classes=12, images=9, size=(60, 80), audit={"errors": [], "warnings": []})))
    return path


def test_the_console_stays_silent_and_the_whole_page_is_there(tmp_path: Path) -> None:
    page, console = browse(tmp_path, write_page(tmp_path), "--dump-dom")
    assert console == ""
    assert "Data audit" in page and page.rstrip().endswith("</html>")


def test_nothing_is_wider_than_a_phone(tmp_path: Path) -> None:
    write_page(tmp_path)
    frame = tmp_path / "frame.html"
    frame.write_text(
        "<iframe id=f src=report.html style='width:390px;height:800px'></iframe><p id=w></p><script>onload = () => {"
        "const page = f.contentDocument.documentElement; w.textContent = `${page.scrollWidth}/${page.clientWidth}` }"
        "</script>"
    )
    page, _ = browse(tmp_path, frame, "--dump-dom")
    found = re.search(r'id="w">(\d+)/(\d+)<', page)
    assert found and int(found[1]) == int(found[2]) == 390


@pytest.mark.parametrize(("scheme", "paper"), [("1", (255, 255, 255)), ("0", (20, 23, 26))])
def test_the_page_is_light_by_day_and_dark_by_night(tmp_path: Path, scheme: str, paper: tuple[int, ...]) -> None:
    picture = tmp_path / "picture.png"
    options = (f"--blink-settings=preferredColorScheme={scheme}", "--window-size=800,600", f"--screenshot={picture}")
    browse(tmp_path, write_page(tmp_path), *options)
    assert Image.open(picture).convert("RGB").getpixel((2, 2)) == paper
