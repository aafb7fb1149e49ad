"""local_test/evaluate: the report of any model, with stand-ins for the network."""

from __future__ import annotations

import json
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from local_test import evaluate
from tests.conftest import write_pair


class Engine:
    """Answers class 1 where the picture is brighter than the graph's content says."""

    def __init__(self, graph: Path, precision: str, threads: int) -> None:
        self.num_classes, self._bound = 2, int(graph.read_text())

    def mask(self, image: np.ndarray) -> np.ndarray:
        return (image.mean(axis=2) > self._bound).astype(np.uint8)


Run = Callable[..., Path]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return a function that evaluates with the arguments given, and returns where the report is."""
    rng = np.random.default_rng(0)
    for number in range(6):
        write_pair(tmp_path, "validation", f"image-{number}", rng)
    monkeypatch.setattr(evaluate, "OpenVinoEngine", Engine)

    def start(model: Path, *further: str) -> Path:
        data = tmp_path / "input/data"
        command = [str(model), str(data / "validation"), str(data / "validation_annotation"), *further]
        monkeypatch.setattr(sys, "argv", ["evaluate", *command, "--output", str(tmp_path / "out")])
        evaluate.main()
        return tmp_path / "out"

    return start


def pack(path: Path, bound: int, num_classes: int = 2, names: tuple[str, ...] = ("ground", "square")) -> Path:
    """Write an archive whose graph is a threshold."""
    folder = path.with_suffix(".d")
    folder.mkdir()
    (folder / "hyperparams.json").write_text(json.dumps({"num_classes": str(num_classes), "algorithm": "fcn"}))
    (folder / "model_best.params").write_bytes(b"weights")
    (folder / "model.onnx").write_text(str(bound))
    (folder / "classes.json").write_text(json.dumps([{"id": i, "name": name} for i, name in enumerate(names)]))
    with tarfile.open(path, "w:gz") as archive:
        for file in folder.iterdir():
            archive.add(file, file.name)
    return path


def test_a_good_model_is_reported_with_its_names(run: Run, tmp_path: Path) -> None:
    out = run(pack(tmp_path / "model.tar.gz", bound=120))
    page, figures = (out / "report.html").read_text(), json.loads((out / "report.json").read_text())
    (model,) = figures["models"]
    assert figures["images"] == 6 and figures["skipped"] == []
    assert model["mIOU"] > 0.9 and len(model["image_mIOU"]) == 6  # a threshold is all these pictures need
    assert f"mIOU {model['mIOU']:.3f} on 6 whole images" in page
    assert "square</th>" in page and "Against" not in page and "Curves" not in page


def test_a_worse_model_loses_on_every_image(run: Run, tmp_path: Path) -> None:
    other = pack(tmp_path / "other.tar.gz", bound=300)  # never answers class 1
    out = run(pack(tmp_path / "model.tar.gz", bound=120), "--against", str(other))
    page = (out / "report.html").read_text()
    # 6 of 6: 2 / 2**6
    assert "6 images are better, 0 worse and 0 the same: equal models differ so much with probability 0.031" in page
    assert "Images gained most" in page and "Images lost most" not in page


def test_pairs_that_cannot_be_used_are_named_and_not_counted(run: Run, tmp_path: Path) -> None:
    (tmp_path / "input/data/validation/image-2.jpg").write_bytes(b"no picture")
    out = run(pack(tmp_path / "model.tar.gz", bound=120))
    figures = json.loads((out / "report.json").read_text())
    assert figures["images"] == 5 and "image-2.jpg" in figures["skipped"][0]
    page = (out / "report.html").read_text()
    assert "Pairs that could not be used and are not counted: 1." in page and "image-2.jpg" in page


def test_what_cannot_be_evaluated_is_one_line(run: Run, tmp_path: Path) -> None:
    model = pack(tmp_path / "model.tar.gz", bound=120)
    broken = tmp_path / "broken.tar.gz"
    broken.write_bytes(model.read_bytes()[:200])
    strange = tmp_path / "notes.txt"
    strange.write_text("no archive")
    three = pack(tmp_path / "three.tar.gz", bound=120, num_classes=3)
    label_map = tmp_path / "map.json"
    label_map.write_text('{"map": {"7": 1}}')
    for arguments, reason in (
        ((broken,), "broken.tar.gz cannot be unpacked"),
        ((strange,), "notes.txt is no archive"),
        ((tmp_path / "lost.tar.gz",), "lost.tar.gz: No such file or directory"),
        ((three,), "describes 3 classes, its graph has 2"),
        ((model, str(label_map)), "map.json holds labels that are no class"),
    ):
        with pytest.raises(SystemExit, match=f"^evaluate: .*{reason}"):
            run(*arguments)
