"""`make seed`: the jobs whose results AWS published, on synthetic images and CPU contexts."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from benchmarks import seed

Train = Callable[..., SimpleNamespace]


def rows(printed: str) -> dict[str, dict[str, str]]:
    """Return the cells of the printed table, by job name and column; published values have a column per metric."""
    head, _, *lines = [[cell.strip() for cell in line.strip("| ").split("|")] for line in printed.splitlines()]
    named = [head[at - 1] + " published" if name == "published" else name for at, name in enumerate(head)]
    return {line[0]: dict(zip(named, line, strict=True)) for line in lines}


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Replace `train`: it writes one epoch whose samples/s are 10 times the devices, or fails in jobs of FAILING."""
    runs: list[tuple[str, int]] = []

    def train(command: list[str], env: dict[str, str], **settings: object) -> SimpleNamespace:
        root = Path(env["SAGEMAKER_BASE_DIR"])
        resumed = sorted(path.name for path in (root / "checkpoints").iterdir())
        runs.append((root.name, len(resumed)))
        if root.name == "post-psp-1" and not resumed:
            (root / "checkpoints/1-0").mkdir()
            return SimpleNamespace(returncode=1)
        (root / "output/data").mkdir(parents=True)
        (root / "model").mkdir()
        rate = 10.0 * int(root.name[-1])
        epoch = {"mIOU": 0.5, "pixel_accuracy": 0.75, "train_throughput": rate, "validation_throughput": 2 * rate}
        worse = {**epoch, "mIOU": 0.25, "pixel_accuracy": 0.9}
        (root / "output/data/report.json").write_text(json.dumps({"epochs": [epoch, worse]}))
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(seed.subprocess, "run", train)
    return runs


def test_tiny_job_trains_on_cpu_contexts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seed.main(["--tiny", "--only", "post-fcn-2", "--out", str(tmp_path)])
    log = (tmp_path / "jobs/post-fcn-2/log").read_text()
    assert "rmsprop in its centered form: gamma1=0.9, and gamma2=0.9 as momentum; weight_decay=0.0001" in log
    (miou,) = re.findall(r"validation mIOU: (\S+) \.", log)
    row = rows(capsys.readouterr().out)["post-fcn-2"]
    assert float(row["best mIOU"]) == pytest.approx(float(miou), abs=1e-4)
    assert row["best mIOU published"] == "0.62"
    report = json.loads((tmp_path / "jobs/post-fcn-2/output/data/report.json").read_text())
    assert (
        "cpu(1)" in json.dumps(report) or "cpu(1)" in (tmp_path / "jobs/post-fcn-2/output/data/report.html").read_text()
    )
    assert not (tmp_path / "checkpoints/post-fcn-2").exists()


def test_failed_job_resumes_and_finished_jobs_are_not_repeated(
    tmp_path: Path, stub: list[tuple[str, int]], capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["--tiny", "--only", "post-fcn-1,post-psp-1,post-fcn-8,default-fcn-4", "--out", str(tmp_path)]
    with pytest.raises(SystemExit, match="post-psp-1"):
        seed.main(command)
    assert stub == [("post-fcn-1", 0), ("post-fcn-8", 0), ("post-psp-1", 0), ("default-fcn-4", 0)]
    capsys.readouterr()
    seed.main(command)
    assert stub[4:] == [("post-psp-1", 1)]
    table = rows(capsys.readouterr().out)
    assert set(table) == {"post-fcn-1", "post-psp-1", "post-fcn-8", "default-fcn-4"}
    assert (table["post-fcn-8"]["speedup"], table["post-fcn-8"]["speedup published"]) == ("8", "5.83")
    default = table["default-fcn-4"]
    assert (default["best mIOU"], default["best mIOU published"]) == ("0.5", "0.5317")
    assert (default["pixel accuracy"], default["pixel accuracy published"]) == ("0.75", "0.8538")
    assert (default["train samples/s"], default["train samples/s published"]) == ("40", "76")
    assert (default["validation samples/s"], default["validation samples/s published"]) == ("80", "123")


def test_results_of_other_hyperparameters_are_rejected(tmp_path: Path, stub: list[tuple[str, int]]) -> None:
    command = ["--tiny", "--only", "post-fcn-1", "--out", str(tmp_path)]
    seed.main(command)
    with pytest.raises(SystemExit, match=r"post-fcn-1 with other hyperparameters\. Set another --out"):
        seed.main([*command, "learning_rate=0.01"])


def test_jobs_are_those_that_were_published() -> None:
    assert len(seed.JOBS) == 24
    batches = [seed.Job("post", "psp", count).settings()["mini_batch_size"] for count in seed.DEVICES]
    assert batches == [8, 16, 32, 64]
    post = seed.Job("post", "fcn", 1).settings()
    assert (post["optimizer"], post["gamma2"], post["weight_decay"], post["epochs"]) == ("rmsprop", 0.9, 0.0001, 20)
    assert (post["crop_size"], post["backbone"], post["num_classes"]) == (240, "resnet-50", 21)
    default = seed.Job("default", "fcn", 4).settings()
    assert default["epochs"] == 30
    assert not {"optimizer", "learning_rate", "mini_batch_size"} & default.keys()


def test_gpus_limit_the_jobs(
    tmp_path: Path, stub: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seed.main(["--tiny", "--only", "nothing", "--out", str(tmp_path)])
    assert np.unique(Image.open(next(tmp_path.glob("data/train_annotation/*.png")))).max() == 255
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    command = [str(tmp_path / "VOCdevkit"), "--out", str(tmp_path), "--only"]
    seed.main([*command, "post-fcn-2,post-fcn-4"])
    assert stub == [("post-fcn-2", 0)]
    assert "This machine has 2 GPUs. These jobs are skipped: post-fcn-4" in capsys.readouterr().err


def test_without_a_gpu_or_data_it_exits_with_advice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit, match=r"No GPU found\. Run this on a GPU instance, or add --tiny\."):
        seed.main([str(tmp_path), "--out", str(tmp_path)])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with pytest.raises(SystemExit, match="JPEGImages and SegmentationClass"):
        seed.main([str(tmp_path), "--out", str(tmp_path)])
