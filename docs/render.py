"""Renders the pages' tables from what they are about: `python -m docs.render` (make docs).

A page says `<!-- rendered by: COMMAND -->`; the lines until the next blank one are what COMMAND prints.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).parent.parent
PYTHON = ".venv/bin/python"  # as the marks write it

_MARK = re.compile(r"(?m)^<!-- rendered by: (?P<command>.+) -->\n(?P<rendered>(?:.+\n)*)")


def pages() -> list[Path]:
    """List the pages that a person reads."""
    folders = (".", "docs", "benchmarks")
    found = [page for name in folders for page in sorted((PROGRAM / name).glob("*.md"))]
    return [*found, PROGRAM / "pretrained/README.md"]


def render(text: str) -> str:
    """Return a page's text with all its tables rendered anew; raises CalledProcessError when a command fails."""
    return _MARK.sub(lambda found: f"<!-- rendered by: {found['command']} -->\n{_output(found['command'])}\n", text)


def _output(command: str) -> str:
    words = [sys.executable if word == PYTHON else word for word in shlex.split(command)]
    done = subprocess.run(words, cwd=PROGRAM, stdout=subprocess.PIPE, text=True, check=True, timeout=120)
    return done.stdout.strip()


def main() -> None:
    """Render every page, and name those that change."""
    for page in pages():
        before = page.read_text(encoding="utf-8")
        after = render(before)
        if after != before:
            page.write_text(after, encoding="utf-8")
            print(page.relative_to(PROGRAM))


if __name__ == "__main__":
    main()
