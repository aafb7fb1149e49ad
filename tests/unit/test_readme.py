"""What the README publishes is what the program has."""

from __future__ import annotations

import re

from container.hyperparameters import markdown_table
from container.metrics import METRIC_DEFINITIONS
from tests.conftest import PROGRAM

README = (PROGRAM / "README.md").read_text()


def test_the_table_of_hyperparameters_is_the_schemas() -> None:
    assert markdown_table() in README


def test_every_metric_expression_is_published() -> None:
    for name, expression in METRIC_DEFINITIONS.items():
        assert f'{{"Name": "{name}", "Regex": r"{expression}"}}' in README


def test_every_picture_is_there() -> None:
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", README)
    assert pictures == ["docs/demo.png", "docs/report.png", "docs/page.png"]
    assert all((PROGRAM / picture).is_file() for picture in pictures)
