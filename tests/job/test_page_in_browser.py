"""The page of `SERVE_UI=1` in a real browser, before a real server; what it shows is held against the API's answers."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from selenium.webdriver import ActionChains, Chrome, Keys
from selenium.webdriver.remote.webelement import WebElement

from container.mx.export import export_onnx
from tests.conftest import wait_until
from tests.job.browser import console, contrasts, open_browser, set_scheme, set_width
from tests.job.server import PATIENCE, Server, noise, write_model

LONG = "Donaudampfschifffahrtsgesellschaftskapitänsmütze"
NAMES = ["ground", "<b>road</b>", "car", "class 3", LONG]
COLORS = [(0, 0, 0), (128, 64, 128), (226, 178, 60), (0, 64, 128), (48, 96, 208)]
HEIGHT, WIDTH = 40, 60


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("ml")
    export_onnx(write_model(root), root / "model" / "model.onnx")
    known = [{"id": i, "name": NAMES[i], "color": "#{:02x}{:02x}{:02x}".format(*COLORS[i])} for i in (0, 1, 2, 4)]
    known.append({"id": 3, "color": "#004080"})
    (root / "model" / "classes.json").write_text(json.dumps(known))
    with Server(root, root / "log", SERVE_UI="1") as server:
        yield server


@pytest.fixture(scope="module")
def browsers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Chrome, Path]]:
    folder = tmp_path_factory.mktemp("browser")
    with open_browser(folder) as browser:
        yield browser, folder / "downloads"


@pytest.fixture
def page(browsers: tuple[Chrome, Path], server: Server) -> Iterator[Chrome]:
    """The page, freshly opened; whatever the console says without the test's asking fails the test."""
    browser, _ = browsers
    set_width(browser, 1200)
    set_scheme(browser, "light")
    browser.get(server.url)
    yield browser
    assert console(browser) == []


@pytest.fixture
def shown(page: Chrome, tmp_path: Path) -> Chrome:
    """The page with the mask of an image."""
    upload(page, tmp_path / "photo.png", noise(HEIGHT, WIDTH))
    wait_for_answer(page)
    return page


def get(page: Chrome, name: str) -> WebElement:
    return page.find_element("id", name)


def upload(page: Chrome, path: Path, content: bytes) -> None:
    path.write_bytes(content)
    get(page, "file").send_keys(str(path))


def wait_for_answer(page: Chrome) -> None:
    wait_until(lambda: "classes after" in get(page, "status").text, PATIENCE, lambda: get(page, "reason").text)


def pixels(page: Chrome, canvas: str) -> np.ndarray:
    """What a canvas shows: uint8 (H, W, 4)."""
    script = """
    const { width, height } = document.getElementById(arguments[0]);
    const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
    context.drawImage(document.getElementById(arguments[0]), 0, 0);
    return [height, width, Array.from(context.getImageData(0, 0, width, height).data)];
    """
    height, width, values = page.execute_script(script, canvas)
    return np.array(values, np.uint8).reshape(height, width, 4)


@pytest.fixture(scope="module")
def probabilities(server: Server) -> np.ndarray:
    """The probabilities of the image from the API, float32 (C, H, W)."""
    answer: np.ndarray = np.load(io.BytesIO(server.invoke(noise(HEIGHT, WIDTH), "application/x-npy").content))[0]
    return answer


@pytest.fixture(scope="module")
def mask(server: Server) -> np.ndarray:
    """The API's mask for it, uint8 (H, W)."""
    mask = np.asarray(Image.open(io.BytesIO(server.invoke(noise(HEIGHT, WIDTH)).content)))
    assert {0, 1, 4} <= set(np.unique(mask))
    return mask


def colored(mask: np.ndarray, labels: set[int]) -> np.ndarray:
    """The mask in its colors, uint8 (H, W, 4), clear where another class is."""
    answer = np.zeros((*mask.shape, 4), np.uint8)
    for label in labels:
        answer[mask == label] = (*COLORS[label], 255)
    return answer


def test_a_photograph_is_seen_under_its_mask_with_every_class_share(shown: Chrome, mask: np.ndarray) -> None:
    photo = np.asarray(Image.open(io.BytesIO(noise(HEIGHT, WIDTH))))
    assert (pixels(shown, "photo")[:, :, :3] == photo).all()
    assert (pixels(shown, "mask") == colored(mask, {1, 2, 3, 4})).all()  # black is transparent
    counts = np.bincount(mask.ravel(), minlength=5)
    rows = [row.text.split("\n") for row in shown.find_elements("css selector", "#classes tr")]
    named = [f"{name} – transparent" if name == "ground" else name for name in NAMES]
    assert [row[0] for row in rows] == [named[i] for i in np.argsort(-counts, kind="stable") if counts[i]]
    shares = [float(row[1].removesuffix(" %").removeprefix("< ")) / 100 for row in rows]
    assert shares == pytest.approx(sorted(counts[counts > 0] / mask.size, reverse=True), abs=0.005)
    assert f"photo.png, {WIDTH} × {HEIGHT}: {(counts > 0).sum()} classes after " in get(shown, "status").text
    assert "5 classes, openvino in " in get(shown, "model").text


def test_durations_are_listed_per_phase(shown: Chrome) -> None:
    rows = [row.text.rsplit(" ", 1) for row in shown.find_elements("css selector", "#times tr")]
    phases = [phase for phase, _ in rows]
    assert phases[:5] == [
        "Server: receive the image",
        "Server: wait in the queue",
        "Server: decode",
        "Server: run inference",
        "Server: encode the response",
    ]
    assert phases[-3:] == ["Network", "Browser: draw", "Total"]
    times = [float(time) for _, time in rows]
    assert times[3] > 0 and sum(times[:-1]) == pytest.approx(times[-1], abs=1)


def test_the_mouse_names_class_and_probability(shown: Chrome, probabilities: np.ndarray, mask: np.ndarray) -> None:
    certainty = np.where(mask > 0, probabilities.max(0), 1)
    y, x = (int(place) for place in np.unravel_index(certainty.argmin(), certainty.shape))
    stage = get(shown, "stage")
    assert stage.size["width"] / WIDTH > 5  # a pixel can be pointed at
    offsets = [
        round((at + 0.8) / whole * size - size / 2)
        for at, whole, size in ((x, WIDTH, stage.size["width"]), (y, HEIGHT, stage.size["height"]))
    ]
    ActionChains(shown).move_to_element_with_offset(stage, *offsets).perform()
    name, percent, place = get(shown, "readout").text.split(" · ")
    assert (name, place) == (NAMES[mask[y, x]], f"x {x}, y {y}")
    assert float(percent.removesuffix(" %")) == pytest.approx(100 * certainty[y, x], abs=1)
    ActionChains(shown).move_to_element(get(shown, "model")).perform()
    assert get(shown, "readout").text.strip() == ""


def test_the_arrow_keys_name_class_and_probability_aloud(shown: Chrome, mask: np.ndarray) -> None:
    stage, readout = get(shown, "stage"), get(shown, "readout")
    stage.send_keys(Keys.ARROW_UP)
    assert readout.text.startswith(NAMES[mask[20, 30]]) and readout.text.endswith("x 30, y 20")
    stage.send_keys(Keys.SHIFT, Keys.ARROW_RIGHT)
    assert readout.text.endswith("x 31, y 20")
    stage.send_keys(*[Keys.ARROW_DOWN] * 30)
    assert readout.text.startswith(NAMES[mask[39, 31]]) and readout.text.endswith("x 31, y 39")
    assert readout.get_attribute("aria-live") == "polite"
    assert get(shown, "mark").is_displayed()


def test_one_class_is_seen_alone(shown: Chrome, mask: np.ndarray) -> None:
    button = shown.find_element("css selector", "#classes [data-id='4']")
    button.send_keys(Keys.ENTER)
    assert button.get_attribute("aria-pressed") == "true"
    assert (pixels(shown, "mask") == colored(mask, {4})).all()
    black = shown.find_element("css selector", "#classes [data-id='0']")
    black.click()
    assert (pixels(shown, "mask") == colored(mask, {0})).all()
    button.click()
    ActionChains(shown).send_keys(Keys.ESCAPE).perform()
    assert (pixels(shown, "mask") == colored(mask, {1, 2, 3, 4})).all()
    button.click()
    get(shown, "all").click()
    assert button.get_attribute("aria-pressed") == "false" and not get(shown, "all").is_enabled()


def test_the_masks_opacity_follows_the_slider(shown: Chrome) -> None:
    get(shown, "opacity").send_keys(Keys.HOME, Keys.ARROW_RIGHT)
    assert get(shown, "mask").value_of_css_property("opacity") == "0.05"
    assert get(shown, "percent").text == "5 %"


def test_mask_and_overlay_can_be_saved(shown: Chrome, browsers: tuple[Chrome, Path], mask: np.ndarray) -> None:
    downloads = browsers[1]
    for what in ("mask", "overlay"):
        get(shown, f"save-{what}").click()
        wait_until((downloads / f"photo_{what}.png").is_file, PATIENCE)
    with Image.open(downloads / "photo_mask.png") as saved:
        assert saved.mode == "P" and (np.asarray(saved) == mask).all()
        assert saved.convert("RGB").getpixel(tuple(int(at) for at in np.argwhere(mask == 4)[0][::-1])) == COLORS[4]
    photo = np.asarray(Image.open(io.BytesIO(noise(HEIGHT, WIDTH)))).astype(int)
    over = colored(mask, {1, 2, 3, 4}).astype(int)
    expected = np.where(over[:, :, 3:] > 0, (photo + over[:, :, :3]) / 2, photo)
    with Image.open(downloads / "photo_overlay.png") as saved:
        assert abs(np.asarray(saved)[:, :, :3] - expected).max() <= 1.5


def test_error_message_of_the_api_is_shown(page: Chrome, server: Server, tmp_path: Path) -> None:
    text = b"no photograph <b>at all</b>"
    upload(page, tmp_path / "photo.png", text)
    wait_until(get(page, "error").is_displayed, PATIENCE)
    reason = server.invoke(text).json()["error"]
    assert "neither a JPEG nor a PNG" in reason and get(page, "reason").text == f"{reason} (400)"
    assert not get(page, "result").is_displayed() and not get(page, "again").is_displayed()
    (line,) = console(page)  # the browser's own note of the status
    assert "/invocations - Failed to load resource: the server responded with a status of 400" in line
    upload(page, tmp_path / "other.png", noise(HEIGHT, WIDTH))
    wait_for_answer(page)
    assert not get(page, "error").is_displayed()


HAND_OVER = """
const bytes = Uint8Array.from(atob(arguments[1]), (character) => character.charCodeAt(0));
const transfer = new DataTransfer();
for (const name of arguments[2]) transfer.items.add(new File([bytes], name, { type: "image/png" }));
document.dispatchEvent(arguments[0] === "paste" ? new ClipboardEvent("paste", { clipboardData: transfer })
  : new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true }));
"""


@pytest.mark.parametrize("way", ["paste", "drop"])
def test_a_photograph_can_be_pasted_and_dropped(page: Chrome, mask: np.ndarray, way: str) -> None:
    page.execute_script(HAND_OVER, way, "", [])
    assert get(page, "reason").text.split(" ")[0] == "The"
    assert not get(page, "again").is_displayed()
    page.execute_script(HAND_OVER, way, base64.b64encode(noise(HEIGHT, WIDTH)).decode(), ["one.png", "two.png"])
    wait_for_answer(page)
    assert (pixels(page, "mask") == colored(mask, {1, 2, 3, 4})).all()
    assert get(page, "status").text.startswith("one.png, ")
    assert get(page, "note").text == "Only the first of 2 files is shown."
    assert not get(page, "error").is_displayed()


@pytest.mark.parametrize("file_format", ["JPEG", "PNG"])
def test_a_photograph_is_shown_as_the_server_sees_it(page: Chrome, tmp_path: Path, file_format: str) -> None:
    tags, target = Image.Exif(), io.BytesIO()
    tags[0x0112] = 6  # a viewer turns it
    image = Image.new("RGB", (WIDTH, HEIGHT), (255, 0, 0))
    image.paste((0, 0, 255), (0, 0, WIDTH, HEIGHT // 2))
    image.save(target, file_format, exif=tags, **({"quality": 95} if file_format == "JPEG" else {}))
    upload(page, tmp_path / "turned.jpg", target.getvalue())
    wait_until(lambda: "turned.jpg, 60 × 40" in get(page, "status").text, PATIENCE)
    photo = pixels(page, "photo").astype(int)
    assert (photo[:10, :, 2] > 200).all() and (photo[-10:, :, 0] > 200).all()
    assert not get(page, "note").is_displayed()


def test_without_room_for_probabilities_the_mask_is_shown(page: Chrome, tmp_path: Path, mask: np.ndarray) -> None:
    page.execute_script("""
    const real = window.fetch;
    window.fetch = (path, options) => options?.headers?.Accept.includes("npy")
      ? Promise.resolve(new Response('{"error": "too many bytes"}', { status: 413 })) : real(path, options);
    """)
    upload(page, tmp_path / "photo.png", noise(HEIGHT, WIDTH))
    wait_for_answer(page)
    assert (pixels(page, "mask") == colored(mask, {1, 2, 3, 4})).all()
    assert get(page, "note").text == "No probabilities: too many bytes."
    get(page, "stage").send_keys(Keys.ARROW_UP)
    assert get(page, "readout").text == f"{NAMES[mask[20, 30]]} · x 30, y 20"


@pytest.mark.parametrize("width", [320, 390])
def test_a_phone_shows_everything_without_sideways_scrolling(shown: Chrome, width: int) -> None:
    set_width(shown, width, mobile=True)
    assert shown.execute_script("return document.documentElement.scrollWidth") == width
    edges = shown.execute_script("""
    const boxes = [...document.querySelectorAll("body *")].map((element) => element.getBoundingClientRect());
    return [Math.min(...boxes.map(({ left }) => left)), Math.max(...boxes.map(({ right }) => right)), boxes.length];
    """)
    assert edges[0] >= 0 and edges[1] <= width and edges[2] > 50


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_both_schemes(shown: Chrome, scheme: str) -> None:
    set_scheme(shown, scheme)
    shown.find_element("css selector", "#classes [data-id='4']").click()
    ground = shown.find_element("tag name", "body").value_of_css_property("background-color")
    assert (int(ground.strip("rgba()").split(",")[0]) < 60) == (scheme == "dark")
    selector = "h1, p, label, caption, th, td, button:enabled, button span:not(.swatch)"
    found = contrasts(shown, selector)
    assert len(found) > 20
    assert {text: value for text, value in found.items() if value < 4.5} == {}


def test_every_control_has_a_name_and_can_be_reached_by_key(shown: Chrome) -> None:
    shown.execute_cdp_cmd("Accessibility.enable", {})
    nodes = shown.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    roles = ("button", "slider", "application", "table", "alert", "row", "rowheader", "columnheader")
    named = [(node["role"]["value"], node.get("name", {}).get("value")) for node in nodes if "role" in node]
    controls = [name for role, name in named if role in roles[:4]]
    assert len(controls) > 9 and all(controls)
    assert ("application", "Image with its mask") in named and ("slider", "Opacity of the mask") in named
    shown.execute_script("document.activeElement.blur()")
    reached = []
    for _ in range(10):
        ActionChains(shown).send_keys(Keys.TAB).perform()
        element = shown.switch_to.active_element
        reached.append(element.get_attribute("id") or element.text)
    order = ["file", "stage", "opacity", NAMES[0], "save-mask", "save-overlay"]
    assert [any(name in found for found in reached) for name in order] == [True] * 6, reached


def test_stopped_server_is_reported(page: Chrome, server: Server, tmp_path: Path) -> None:
    """The last test with this server: it ends it."""
    server.process.terminate()
    server.process.wait()
    upload(page, tmp_path / "photo.png", noise(HEIGHT, WIDTH))
    wait_until(get(page, "error").is_displayed, PATIENCE)
    assert get(page, "reason").text == "The server does not respond. Check that it is running."
    assert get(page, "again").is_displayed()
    assert all("ERR_" in line for line in console(page))
