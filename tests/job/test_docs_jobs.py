"""The pages' commands that run a job, convert, quantize or score ("```sh job"), as a reader types them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.conftest import PROGRAM, job_factory, write_pair
from tests.pages import blocks, commands

Run = Callable[[Iterable[list[str]]], None]
PLACES = {
    "DIR": "job",
    "MODEL_DIR": "job/model",
    "VOCdevkit": "devkit",
    "IMAGES": "job/input/data/validation",
    "ANNOTATIONS": "job/input/data/validation_annotation",
    "MODEL": "model.tar.gz",
    "OTHER": "model.tar.gz",
    "model.onnx": "converted.onnx",
}
FOUND = {str(block): commands(block) for block in blocks("sh") if "job" in block.marks}


def told(part: str) -> list[list[str]]:
    """Return the commands of the one block in which one of them contains `part`."""
    (words,) = [block for block in FOUND.values() if any(part in " ".join(words) for words in block)][:1]
    return words


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run commands of the pages, whose places are below `tmp_path`."""

    def place(word: str) -> str:
        head, equals, path = word.rpartition("=")
        first, slash, rest = path.partition("/")
        if word == ".venv/bin/python":
            return sys.executable
        return f"{head}{equals}{tmp_path / PLACES[first]}{slash}{rest}" if first in PLACES else word

    def run(lines: Iterable[list[str]]) -> None:
        environment = {**os.environ, "TEST_DIR": str(tmp_path / "test_dir"), "OMP_NUM_THREADS": "1"}
        for words in lines:
            placed = ["env", *(place(word) for word in words if not re.fullmatch(r"\[.*\]", word))]
            done = subprocess.run(placed, cwd=PROGRAM, env=environment, capture_output=True, text=True, timeout=300)
            assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"

    return run


@pytest.fixture
def job(tmp_path: Path) -> Path:
    make = job_factory(tmp_path / "job")
    return make(train=2, validation=2, backbone="resnet-18", epochs="1", _quantize="False", _report_minutes="0")


def test_a_model_is_trained_converted_quantized_and_scored(run: Run, job: Path, tmp_path: Path) -> None:
    run(told("python train"))
    model = job / "model"
    assert (model / "model.onnx").is_file()
    for graph in model.glob("*.onnx"):
        graph.unlink()
    run(told("container.mx.convert"))
    onnx.checker.check_model(onnx.load(tmp_path / "converted.onnx"))
    run(told("container.engines.quantize"))
    assert (model / "model.int8.onnx").is_file()
    with tarfile.open(tmp_path / "model.tar.gz", "w:gz") as archive:
        archive.add(model, arcname=".")
    run(told("evaluate.sh"))
    assert (tmp_path / "test_dir/evaluation/report.html").is_file()


def test_a_data_set_of_vocs_is_streamed(run: Run, job: Path, tmp_path: Path) -> None:
    shutil.rmtree(job / "input/data")
    year = tmp_path / "devkit/VOC2012"
    lists = year / "ImageSets/Segmentation"
    lists.mkdir(parents=True)
    for name, stems in {"train": ["2007_1", "2007_2"], "val": ["2007_3"]}.items():
        (lists / f"{name}.txt").write_text("\n".join(stems))
        for stem in stems:
            write_pair(tmp_path / "drawn", "all", stem, np.random.default_rng(0))
    shutil.move(tmp_path / "drawn/input/data/all", year / "JPEGImages")
    shutil.move(tmp_path / "drawn/input/data/all_annotation", year / "SegmentationClass")
    run(told("pipe_feeder"))
    assert (job / "model/model_best.params").is_file()


def test_every_block_of_such_commands_is_run() -> None:
    run_above = ["python train", "container.mx.convert", "container.engines.quantize", "evaluate.sh", "pipe_feeder"]
    assert len({id(told(part)) for part in run_above}) == len(FOUND)
