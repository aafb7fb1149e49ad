"""A test runs every file of examples/, and docs/recipes.md links each file."""

from __future__ import annotations

import re

from tests.conftest import PROGRAM

EXAMPLES = sorted(path.name for path in (PROGRAM / "examples").iterdir() if path.suffix in (".py", ".ipynb"))
RECIPES = (PROGRAM / "docs/recipes.md").read_text()


def test_each_is_run_by_a_test() -> None:
    paths = [*PROGRAM.glob("tests/sagemaker/test_*.py"), *PROGRAM.glob("tests/unit/test_examples_*.py")]
    tests = "".join(path.read_text() for path in paths)
    assert [name for name in EXAMPLES if f'"{name}"' not in tests] == []


def test_the_recipes_lead_to_each_and_to_nothing_else() -> None:
    assert sorted(set(re.findall(r"\]\(\.\./examples/([^)]+)\)", RECIPES))) == EXAMPLES


def test_the_recipes_links_within_lead_somewhere() -> None:
    headings = re.findall(r"^#+ (.+)$", RECIPES, re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    assert set(re.findall(r"\]\(#([^)]+)\)", RECIPES)) <= anchors


def test_no_example_has_a_metric_expression_of_its_own() -> None:
    assert [name for name in EXAMPLES if r"#quality_metric\." in (PROGRAM / "examples" / name).read_text()] == []
