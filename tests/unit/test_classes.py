from __future__ import annotations

import json
from pathlib import Path

import pytest

from container.classes import ClassEntry, read_classes
from container.errors import ClientError


def test_names_and_colours(tmp_path: Path) -> None:
    assert read_classes(tmp_path) == {}
    content = [{"id": 0, "name": "ground", "color": "#0a0BfF"}, {"id": 3, "name": "cat"}]
    (tmp_path / "classes.json").write_text(json.dumps(content))
    assert read_classes(tmp_path) == {0: ClassEntry("ground", (10, 11, 255)), 3: ClassEntry("cat")}


@pytest.mark.parametrize("content", ["{", "[1]", '[{"name": "a"}]', '[{"id": 0, "color": "red"}]', "7"])
def test_a_damaged_file_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "classes.json").write_text(content)
    with pytest.raises(ClientError, match=r"classes\.json must be a list"):
        read_classes(tmp_path)
