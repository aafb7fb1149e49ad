"""Phrases that docs/words.txt cannot contain, because codespell checks single words."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.conftest import PROGRAM
from tests.pages import PAGES, called

FOLDERS = ("container", "local_test", "examples", "benchmarks", "docs")
CODE = [
    *(path for name in FOLDERS for path in PROGRAM.glob(f"{name}/**/*.py")),
    *PROGRAM.glob("local_test/*.sh"),
    *(PROGRAM / name for name in ("train", "serve", "hyperparameters.schema.json")),
]

PHRASES = {
    r"of (?:its|their) own": "separate, own",
    r"(?:and|or) the like": "and similar",
    r"all the same": "anyway",
    r"no (?:more|longer|later|larger) than": "at most",
    r"nothing but": "only",
    r"way round": "workaround",
    r"(?:is|are|at) fault": "caused by",
    r"under way": "current, in progress",
    r"there (?:is|are) none": "X does not exist",
    r"(?:gives?|given) (?:it )?back": "release, return",
    r"(?:come|comes|came) up": "occur",
    r"(?:let|lets) (?:in|go)": "accept, close, release",
    r"(?:goes|go|went) on": "continues",
    r"what is wrong": "the errors",
    r"(?:e\.g\.|i\.e\.)": "for example, that is",
}
MODALS = re.compile(r"\b(?:may|shall|should|would|ought)\b")  # in pages: can, might, must, or the imperative
FENCES = re.compile(r"(?ms)^```.*?^```|`[^`\n]+`|\]\([^)\s]+\)")


def hits(text: str) -> list[str]:
    return [f"{hit[0]!r}: write {fix}" for phrase, fix in PHRASES.items() for hit in re.finditer(rf"\b{phrase}", text)]


@pytest.mark.parametrize("page", PAGES, ids=called)
def test_page_has_no_replaced_phrase(page: Path) -> None:
    text = " ".join(FENCES.sub("", page.read_text(encoding="utf-8")).split())
    found = hits(text) + MODALS.findall(text)
    assert not found


@pytest.mark.parametrize("path", CODE, ids=called)
def test_code_has_no_replaced_phrase(path: Path) -> None:
    found = hits(" ".join(re.sub(r"\n\s*#", " ", path.read_text(encoding="utf-8")).split()))
    assert not found


def test_replaced_phrase_is_found() -> None:
    assert hits("a process of its own") == ["'of its own': write separate, own"]
    assert not hits("one process per GPU")
