"""Render the tables of the documentation pages: `python -m docs.render` (make docs).

A page contains `<!-- rendered by: COMMAND -->`. The lines up to the next blank line are the output of COMMAND.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).parent.parent
PYTHON = ".venv/bin/python"  # as in the commands of the pages

_MARK = re.compile(r"(?m)^<!-- rendered by: (?P<command>.+) -->\n(?P<rendered>(?:.+\n)*)")


def pages() -> list[Path]:
    """Return all Markdown pages with text for readers."""
    folders = (".", "docs", "benchmarks")
    found = [page for name in folders for page in sorted((PROGRAM / name).glob("*.md"))]
    return [*found, PROGRAM / "pretrained/README.md"]


def render(text: str) -> str:
    """Return the text of a page with all tables rendered again; raises CalledProcessError if a command fails."""
    return _MARK.sub(lambda found: f"<!-- rendered by: {found['command']} -->\n{_output(found['command'])}\n", text)


def _output(command: str) -> str:
    words = [sys.executable if word == PYTHON else word for word in shlex.split(command)]
    done = subprocess.run(words, cwd=PROGRAM, stdout=subprocess.PIPE, text=True, check=True, timeout=120)
    return done.stdout.strip()


def main() -> None:
    """Render every page, and print the names of changed pages."""
    for page in pages():
        before = page.read_text(encoding="utf-8")
        after = render(before)
        if after != before:
            page.write_text(after, encoding="utf-8")
            print(page.relative_to(PROGRAM))


if __name__ == "__main__":
    main()
