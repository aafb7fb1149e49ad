"""local_test/evaluate: the report of any model, with stand-ins for the network."""

from __future__ import annotations

import json
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from container.artifact.check import write_check
from local_test import evaluate
from tests.conftest import write_pair


class Engine:
    """Answers class 1 where the picture is brighter than the graph's content says."""

    def __init__(self, graph: Path, precision: str, threads: int, slots: int) -> None:
        self.num_classes, self.precision, self._bound = 2, precision, int(graph.read_text())

    def warm(self) -> None:
        pass

    def probabilities(self, image: np.ndarray) -> np.ndarray:
        bright = np.where(self.mask(image), 0.9, 0.1)
        return np.stack([1 - bright, bright]).astype(np.float32)

    def mask(self, image: np.ndarray) -> np.ndarray:
        return (image.mean(axis=2) > self._bound).astype(np.uint8)


Run = Callable[..., Path]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return a function that evaluates with the arguments given, and returns where the report is."""
    rng = np.random.default_rng(0)
    for number in range(6):
        write_pair(tmp_path, "validation", f"image-{number}", rng)
    monkeypatch.setattr("container.engines.openvino.OpenVinoEngine", Engine)

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
    assert f"mIOU {model['mIOU']:.3f} on 6 full images" in page
    assert "square</th>" in page and "Against" not in page and "Curves" not in page


def test_a_worse_model_loses_on_every_image(run: Run, tmp_path: Path) -> None:
    other = pack(tmp_path / "other.tar.gz", bound=300)  # never answers class 1
    out = run(pack(tmp_path / "model.tar.gz", bound=120), "--against", str(other))
    page = (out / "report.html").read_text()
    # 6 of 6: 2 / 2**6
    assert "6 images are better, 0 are worse, and 0 are equal. The probability of this" in page
    assert "between equal models is 0.031" in page
    assert "Images with the largest gain" in page and "Images with the largest loss" not in page


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
        ((broken,), "broken.tar.gz cannot be extracted"),
        ((strange,), "notes.txt is not an archive"),
        ((tmp_path / "lost.tar.gz",), "lost.tar.gz: No such file or directory"),
        ((three,), "has 3 classes, but the ONNX model has 2"),
        ((model, str(label_map)), "map.json contains labels that are not valid class IDs"),
    ):
        with pytest.raises(SystemExit, match=f"^evaluate: .*{reason}"):
            run(*arguments)


def test_masks_of_0_and_255_need_a_label_map(run: Run, tmp_path: Path) -> None:
    annotations = tmp_path / "input/data/validation_annotation"
    for path in annotations.iterdir():
        Image.fromarray((np.asarray(Image.open(path)) == 1).astype(np.uint8) * 255).save(path)
    model = pack(tmp_path / "model.tar.gz", bound=120)
    with pytest.raises(SystemExit) as caught:
        run(model)
    assert str(caught.value).startswith(
        "evaluate: All labeled pixels of channel images_annotation have one class, 0, and the other pixel values "
        "are ignored, so an evaluation is not possible. The pixel values are 0 ("
    )
    told = 'put {"map": {"0": 0, "1": 255}} into a file, and specify it as LABEL_MAP'
    assert told in str(caught.value)
    label_map = tmp_path / "map.json"
    label_map.write_text('{"map": {"0": 0, "1": 255}}')
    (figures,) = json.loads((run(model, str(label_map)) / "report.json").read_text())["models"]
    # by hand: the model is right where it is bright, so that the bright squares are found
    assert figures["confusion"][1][1] > 0.9 * sum(figures["confusion"][1])
    label_map.write_text('{"map": {"0": 0}}')  # the user says that 255 is nothing
    run(model, str(label_map))


def test_images_of_one_class_alone_are_measured(run: Run, tmp_path: Path) -> None:
    for path in (tmp_path / "input/data/validation_annotation").iterdir():
        Image.fromarray(np.zeros((40, 48), np.uint8)).save(path)
    run(pack(tmp_path / "model.tar.gz", bound=120))


def test_the_audit_is_part_of_the_evaluation(run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "input/data/validation/image-2.jpg").write_bytes(b"no picture")
    archive = pack(tmp_path / "model.tar.gz", bound=120)
    out = run(archive)
    audit = json.loads((out / "audit.json").read_text())
    assert audit["errors"] == [] and audit["channels"]["images"]["unusable"] == 1
    kinds = {fault["kind"] for fault in audit["warnings"]}
    # no base_size is in the archive: 520 × 0.5 / 48 is 5.4
    assert kinds == {"unreadable", "scale"}
    assert sum("image-2.jpg" in message for message in caplog.messages) == 1
    page = (out / "report.html").read_text()
    assert "(long side 48 pixels) by 5.4 to 22, because base_size is 520" in page


@pytest.mark.parametrize("unpacked", [False, True])
def test_an_archive_of_two_jobs_is_refused_as_an_endpoint_refuses_it(run: Run, tmp_path: Path, unpacked: bool) -> None:
    def mixed(name: str, file: str, content: bytes) -> Path:
        archive = pack(tmp_path / f"{name}.tar.gz", bound=120)
        folder = archive.with_suffix(".d")
        write_check(folder, Engine(folder / "model.onnx", "float32", 1, 1).probabilities)
        (folder / file).write_bytes(content)
        with tarfile.open(archive, "w:gz") as packed:
            for path in folder.iterdir():
                packed.add(path, path.name)
        return folder if unpacked else archive

    run(mixed("good", "model.onnx", b"120"))
    for path, reason in (
        (
            mixed("weights", "model_best.params", b"others"),
            "model_best.params is not the file that check.json was",
        ),
        (mixed("graph", "model.onnx", b"20"), "the model output differs from check.json"),
    ):
        with pytest.raises(SystemExit) as caught:
            run(path)
        assert str(caught.value).startswith(f"evaluate: {path}: {reason}")
        with pytest.raises(SystemExit, match=reason):
            run(pack(tmp_path / f"first-{path.name.split('.')[0]}.tar.gz", bound=120), "--against", str(path))
