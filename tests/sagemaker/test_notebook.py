"""The notebook: it contains the outputs of one run, and its cells run with this image on fewer images for one epoch."""

from __future__ import annotations

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.conftest import PROGRAM
from tests.sagemaker.conftest import IMAGE

NAME = "semantic_segmentation.ipynb"
SMALLER = {'"--train", "48", "--validation", "8"': '"--train", "8", "--validation", "4"', '"epochs": 8': '"epochs": 1'}


@pytest.fixture
def notebook() -> nbformat.NotebookNode:
    return nbformat.read(PROGRAM / "examples" / NAME, as_version=4)


def printed(notebook: nbformat.NotebookNode) -> str:
    """Return the text outputs of the cells."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "".join(output.get("text") or output.get("data", {}).get("text/plain", "") for output in outputs)


def test_outputs_are_from_one_run(notebook: nbformat.NotebookNode) -> None:
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert len([output for output in outputs if "image/png" in output.get("data", {})]) == 3
    text = printed(notebook)
    assert "completed 100 % of epochs" in text
    assert "of the pixels are right" in text
    assert "((5, 128, 160), True)" in text  # the argmax of the probabilities is the mask


def test_cells_run(
    notebook: nbformat.NotebookNode, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for written, smaller in SMALLER.items():
        (cell,) = [cell for cell in notebook.cells if written in cell.source]
        cell.source = cell.source.replace(written, smaller)
    for name in ("local_test", "container"):
        (tmp_path / name).symlink_to(PROGRAM / name)
    (tmp_path / "examples").mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("IMAGE", IMAGE)
    where = {"metadata": {"path": str(tmp_path / "examples")}}
    NotebookClient(notebook, timeout=900, kernel_name="python3", resources=where).execute(env=dict(os.environ))
    text = printed(notebook)
    assert "'train': 8" in text
    assert "of the pixels are right" in text
    assert "((5, 128, 160), True)" in text
