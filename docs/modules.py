"""Print the modules of `container/` by package, with the first line of their docstrings: `python -m docs.modules`."""

from __future__ import annotations

import ast

from docs.render import PROGRAM


def main() -> None:
    """Print a list item per package and per module."""
    root, package = PROGRAM / "container", None
    for path in sorted(root.rglob("*.py"), key=lambda path: (path.parent, path.name)):
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
        if not text:
            continue
        if path.parent != package:
            package = path.parent
            print(f"- `{package.relative_to(root.parent)}/`")
        print(f"  - `{path.name}`: {text.splitlines()[0].rstrip('.')}")


if __name__ == "__main__":
    main()
