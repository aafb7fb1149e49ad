"""Print the modules of `container/` with the first line of their docstrings: `python -m docs.modules`."""

from __future__ import annotations

import ast

from docs.render import PROGRAM


def main() -> None:
    """Print one table row per module."""
    print("| module | content |\n| --- | --- |")
    for path in sorted((PROGRAM / "container").rglob("*.py")):
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
        if text:
            print(f"| `{path.relative_to(PROGRAM / 'container')}` | {text.splitlines()[0].rstrip('.')} |")


if __name__ == "__main__":
    main()
