"""The report's page: complete, escaped, small, and in need of nothing else."""

from __future__ import annotations

import csv
import dataclasses
import html.parser
import re
from typing import Any

import numpy as np
import pytest

from container.artifact.classes import ClassEntry
from container.training.report.content import Baseline, Content
from container.training.report.example_images import ExampleImages
from container.training.report.page import render_epochs, render_page

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&{{ 7*7 }}\n\u202e"
LIMIT = 2_000_000


def epoch(number: int) -> dict[str, Any]:
    return {
        "epoch": number,
        "train_loss": 2 / (number + 1),
        "mIOU": 0.5 - 0.3 / (number + 1),
        "pixel_accuracy": 0.9,
        "learning_rate": 0.001,
        "train_throughput": 12.5,
        "validation_throughput": 30.0,
        "train_seconds": 4.5,
    }


def content(
    classes: int = 3,
    images: int = 5,
    epochs: int = 4,
    size: tuple[int, int] = (30, 40),
    name: str = "image",
    **changes: Any,
) -> Content:
    """A job's content with noise for photographs, and one class in four rows of every prediction wrong."""
    rng, gallery, confusion = np.random.default_rng(0), ExampleImages(classes), np.zeros((classes, classes), np.int64)
    for number in range(images):
        labels = rng.integers(0, classes, size, np.uint8)
        prediction = labels.copy()
        prediction[:4] = number % classes
        np.add.at(confusion, (labels, prediction), 1)
        gallery.add(f"{name} {number}", rng.integers(0, 256, (*size, 3), np.uint8), labels, prediction)
    values: dict[str, Any] = {
        "title": "A job",
        "num_classes": classes,
        "classes": {0: ClassEntry("road", (1, 2, 3))},
        "history": [epoch(number) for number in range(epochs)],
        "epochs": epochs,
        "scored": gallery.scored(f"{images} whole validation images", confusion, images),
        "details": {"Configuration": {"crop_size": "240"}},
    }
    return Content(**{**values, **changes})


class Page(html.parser.HTMLParser):
    """Reads a page: its elements with their attributes, and its visible text; fails where tags do not nest."""

    VOID = ("meta", "link", "img", "br", "input", "hr")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] != "style":
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def flat(text: str) -> str:
    return " ".join(text.split())


def test_the_page_says_everything_in_its_order() -> None:
    audit = {"errors": [], "warnings": [{"kind": "x", "message": "two images are the same", "details": ["a.jpg"]}]}
    failed = {"int8": "the job was stopped first"}
    page = Page(render_page(content(audit=audit, failed=failed, state="training: 4 of 9 epochs are done")))
    text = flat(page.text)
    assert "training: 4 of 9 epochs are done" in text and "int8 is missing: the job was stopped first" in text
    assert "two images are the same" in text and "crop_size240" in text
    places = [text.index(title) for title in (
        "Assessment mIOU", "IoU per class, worst first", "training loss", "True \\ predicted", "Worst image",
        "Data audit", "Configuration",
    )]  # fmt: skip
    assert places == sorted(places)


@pytest.mark.parametrize("classes", [3, 40])
def test_nothing_comes_from_elsewhere_and_nothing_runs(classes: int) -> None:
    rendered = render_page(content(classes, baseline=None))
    page = Page(rendered)
    assert {name for name, _ in page.elements} & {"script", "iframe", "object", "embed", "form", "base"} == set()
    assert [attributes["href"] for attributes in page.all("link")] == ["data:,"]
    for _, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href", "xlink:href", "action"):
            assert re.match("data:|#|$", attributes.get(name) or "")
    assert "url(" not in rendered and "@import" not in rendered
    namespaces = rendered.replace("http://www.w3.org/2000/svg", "")
    assert "http:" not in namespaces and "https:" not in namespaces
    policy = [each for each in page.all("meta") if each.get("http-equiv") == "Content-Security-Policy"]
    assert (policy[0]["content"] or "").startswith("default-src 'none'")


def test_hostile_names_are_text() -> None:
    audit = {
        "errors": [{"kind": HOSTILE, "message": HOSTILE, "details": [HOSTILE]}],
        "warnings": [],
        "channels": {HOSTILE: {"pairs": 1, "opened": 1, "unusable": 0, "ignored_share": 0.9}},
    }
    whole = content(
        classes=3,
        name=HOSTILE,
        title=HOSTILE,
        state=HOSTILE,
        audit=audit,
        failed={HOSTILE: HOSTILE},
        details={HOSTILE: {HOSTILE: HOSTILE}},
    )
    scored = dataclasses.replace(whole.scored, of=HOSTILE, note=HOSTILE)
    baseline = Baseline(HOSTILE, np.eye(3, dtype=np.int64), {HOSTILE: (0.1, 0.9), HOSTILE + "2": (0.9, 0.1)})
    names = dict.fromkeys(range(3), ClassEntry(HOSTILE))
    page = Page(render_page(dataclasses.replace(whole, scored=scored, baseline=baseline, classes=names)))
    assert not page.all("script")
    assert not [each for each in page.all("img") if not (each["src"] or "").startswith("data:image/")]
    assert "\u202e" not in page.text and "<script>alert(1)</script>" in page.text and "{{ 7*7 }}" in page.text


def test_the_page_stays_below_two_megabytes_whatever_the_job() -> None:
    fault = {"kind": "size", "message": "m" * 5000, "details": ["d" * 5000] * 1000}
    names = {label: ClassEntry("long name " * 20) for label in range(254)}
    details = {"Configuration": {f"key {number}": "v" * 5000 for number in range(60)}}
    audit = {"errors": [fault] * 100, "warnings": [fault] * 100}
    large = content(254, 18, 3000, (200, 280), "n" * 500, audit=audit, details=details)
    rendered = render_page(dataclasses.replace(large, classes=names))
    assert len(rendered.encode()) < LIMIT
    assert len(Page(rendered).all("img")) == 12 * 4 + 1  # 12 examples, and the confusion matrix as a picture


def test_pictures_say_in_words_what_they_show() -> None:
    page = Page(render_page(content(classes=2, images=1, size=(8, 4))))
    alts = [each["alt"] or "" for each in page.all("img")]
    assert len(alts) == 4
    assert alts[0] == "Image: image 0"
    # 32 pixels, seed 0: half of them are predicted as class 0 in any case
    assert re.fullmatch(r"Annotation: (road|class 1) \d+\.\d%, (road|class 1) \d+\.\d%", alts[1])
    assert re.fullmatch(r"Errors: \d+\.\d% of the labeled pixels are wrong", alts[3])
    curves = [each["aria-label"] or "" for each in page.all("svg")]
    told = "training loss: 2 in epoch 0, 0.5 in epoch 3. Lowest 0.5 (epoch 3), highest 2 (epoch 0)"
    assert curves[0].startswith(told)


def test_tables_have_headers_for_rows_and_columns() -> None:
    page = Page(render_page(content()))
    scopes = [each.get("scope") for each in page.all("th")]
    assert None not in scopes and {"row", "col"} <= set(scopes)


def test_a_job_that_has_just_begun_has_a_page() -> None:
    page = Page(render_page(Content("A job", 2)))
    assert "No epoch is complete, so" in page.text and not page.all("img")


def test_an_absent_class_is_named_and_not_ranked() -> None:
    confusion = np.diag([5, 0, 5])
    scored = dataclasses.replace(content().scored, confusion=confusion)
    text = flat(Page(render_page(content(scored=scored))).text)
    assert "The following classes are neither annotated nor predicted, and do not count in the mIOU: class 1." in text


def test_metrics_csv_holds_the_numbers_of_the_report() -> None:
    history = [epoch(0), {"epoch": 1, "train_loss": 1.25, "mIOU": 0.1 + 0.2, "pixel_accuracy": 0.75}]
    rows = list(csv.DictReader(render_epochs(history).splitlines()))
    assert [int(row["epoch"]) for row in rows] == [0, 1]
    assert float(rows[1]["mIOU"]) == 0.30000000000000004  # to the last digit
    assert rows[1]["learning_rate"] == "" and float(rows[0]["train_seconds"]) == 4.5
