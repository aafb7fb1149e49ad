"""The pages that a person reads, taken apart: their headings, links, tables and blocks of code."""

from __future__ import annotations

import dataclasses
import itertools
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

from docs.render import pages
from tests.conftest import PROGRAM

PAGES = pages()


@dataclasses.dataclass(frozen=True)
class Block:
    """A block of code; `marks` are the words behind its language, as in "```python run server"."""

    page: Path
    line: int
    language: str
    marks: tuple[str, ...]
    text: str

    def __str__(self) -> str:
        return f"{called(self.page)}:{self.line}"


def called(page: Path) -> str:
    return page.relative_to(PROGRAM).as_posix()


def _tokens(page: Path) -> list[Token]:
    return MarkdownIt("commonmark").enable("table").parse(page.read_text(encoding="utf-8"))


def blocks(language: str) -> list[Block]:
    """List the blocks of one language, on all pages."""
    found = []
    for page in PAGES:
        for token in _tokens(page):
            words = token.info.split()
            if token.type == "fence" and token.map and (words or [""])[0] == language:
                found.append(Block(page, token.map[0] + 1, language, tuple(words[1:]), token.content))
    return found


def languages() -> set[str]:
    """Name the languages of all blocks."""
    fences = (token for page in PAGES for token in _tokens(page) if token.type == "fence")
    return {(token.info.split() or [""])[0] for token in fences}


def links(page: Path) -> Iterator[str]:
    """Give the address of every link and picture."""
    for token in _tokens(page):
        for child in token.children or ():
            for name in ("href", "src"):
                if address := child.attrGet(name):
                    yield str(address)


def anchors(page: Path) -> set[str]:
    """Name the anchors that GitHub gives the page's headings."""
    found: set[str] = set()
    tokens = _tokens(page)
    for token, inline in itertools.pairwise(tokens):
        if token.type == "heading_open":
            text = "".join(child.content for child in inline.children or ())
            anchor = plain = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
            number = 0
            while anchor in found:
                anchor = f"{plain}-{(number := number + 1)}"
            found.add(anchor)
    return found


def table_after(page: Path, text: str) -> list[list[str]]:
    """Return the rows, cell by cell, of the first table behind `text`, without its head."""
    rest = page.read_text(encoding="utf-8").partition(text)[2]
    assert rest, f"{called(page)} has no {text!r}"
    rows = re.search(r"(?m)(?:^\|.*\n)+", rest)
    assert rows, f"no table follows {text!r}"
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in rows[0].splitlines()[2:]]


def quoted(cell: str) -> list[str]:
    """Return what stands between backticks."""
    return re.findall(r"`([^`]+)`", cell)


def commands(block: Block) -> list[list[str]]:
    """Return the block's commands, each as its words, without comments."""
    text = block.text.replace("\\\n", " ")
    return [words for line in text.splitlines() if (words := shlex.split(line, comments=True))]
