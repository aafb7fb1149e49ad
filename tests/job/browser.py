"""Chromium without a window, driven by selenium, for tests of what people see in a browser."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

_FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage --no-proxy-server --force-color-profile=srgb"
)


@contextlib.contextmanager
def open_browser(folder: Path) -> Iterator[Chrome]:
    """Open a browser that keeps its profile and its downloads (`folder / "downloads"`) in `folder`.

    Skips the test where Debian's packages `chromium` and `chromium-driver` are not installed.
    """
    programs = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if not all(programs):
        pytest.skip("there is no browser: apt-get install chromium chromium-driver")
    options = ChromeOptions()
    options.binary_location = str(programs[0])
    for flag in (*_FLAGS.split(), f"--user-data-dir={folder / 'profile'}"):
        options.add_argument(flag)
    options.add_experimental_option("prefs", {"download.default_directory": str(folder / "downloads")})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = Chrome(options, Service(str(programs[1])))
    try:
        browser.set_script_timeout(60)
        yield browser
    finally:
        browser.quit()


def console(browser: Chrome) -> list[str]:
    """Return what the console has said since the last call: errors, warnings, violations of the page's policy."""
    return [str(entry["message"]) for entry in browser.get_log("browser")]  # type: ignore[no-untyped-call]


def set_width(browser: Chrome, width: int, mobile: bool = False) -> None:
    """Set the window's width in CSS pixels; headless Chromium itself has none below 500."""
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": mobile}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def set_scheme(browser: Chrome, scheme: str) -> None:
    """Prefer `light` or `dark` pages, as a person's system does."""
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def contrasts(browser: Chrome, selector: str) -> dict[str, float]:
    """Return the contrast, between 1 and 21, of the visible texts in the elements of a CSS selector to their ground.

    https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio
    """
    return {text: _contrast(color, ground) for text, color, ground in browser.execute_script(_COLORS, selector)}


_COLORS = """
const channels = (color) => color.match(/[\\d.]+/g).map(Number);
const isClear = (element) => channels(getComputedStyle(element).backgroundColor)[3] === 0;
return [...document.querySelectorAll(arguments[0])].filter((element) => element.innerText).map((element) => {
  let ground = element;
  while (isClear(ground)) ground = ground.parentElement;
  const colors = [getComputedStyle(element).color, getComputedStyle(ground).backgroundColor];
  return [element.innerText, ...colors.map(channels)];
});
"""


def _contrast(color: list[float], ground: list[float]) -> float:
    lighter, darker = sorted((_luminance(color), _luminance(ground)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(color: list[float]) -> float:
    linear = [part / 255 / 12.92 if part <= 10 else ((part / 255 + 0.055) / 1.055) ** 2.4 for part in color[:3]]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
