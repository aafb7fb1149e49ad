"""The weights that a job starts from are checked before the audit, and without MXNet."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import tarfile
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

from container.environment import Environment
from container.errors import ClientError
from container.training.run import run
from tests.conftest import PROGRAM, JobFactory

# A basic block of a ResNet under PyTorch's names, written from its definition in torchvision and timm
BLOCKS = ((64, 64), (64, 128), (128, 256), (256, 512))


def write_resnet18(path: Path, **changes: np.ndarray | None) -> None:
    """Write a backbone as timm publishes it."""
    arrays: dict[str, np.ndarray] = {}

    def norm(name: str, channels: int) -> None:
        for kind in ("weight", "bias", "running_mean", "running_var"):
            arrays[f"{name}.{kind}"] = np.ones(channels, np.float32)

    arrays["conv1.weight"] = np.ones((64, 3, 7, 7), np.float32)
    norm("bn1", 64)
    for stage, (entering, leaving) in enumerate(BLOCKS, 1):
        for block in range(2):
            channels = entering if block == 0 else leaving
            for number, width in ((1, channels), (2, leaving)):
                arrays[f"layer{stage}.{block}.conv{number}.weight"] = np.ones((leaving, width, 3, 3), np.float32)
                norm(f"layer{stage}.{block}.bn{number}", leaving)
            if channels != leaving:
                arrays[f"layer{stage}.0.downsample.0.weight"] = np.ones((leaving, channels, 1, 1), np.float32)
                norm(f"layer{stage}.0.downsample.1", leaving)
    arrays |= {"fc.weight": np.ones((1000, 512), np.float32), "fc.bias": np.ones(1000, np.float32)}
    merged = {**arrays, **changes}
    path.parent.mkdir(parents=True, exist_ok=True)
    safetensors.numpy.save_file({name: array for name, array in merged.items() if array is not None}, str(path))


def write_model(path: Path, num_classes: int = 2, settings: dict[str, Any] | None = None) -> None:
    """Write an earlier job's archive, of fcn on resnet-18."""
    weights = path.with_name("weights.safetensors")
    heads: dict[str, np.ndarray] = {}
    for head, channels in (("head", 512), ("auxlayer", 256)):
        inner = channels // 4
        heads[f"{head}.block.0.weight"] = np.ones((inner, channels, 3, 3), np.float32)
        for kind in ("weight", "bias", "running_mean", "running_var"):
            heads[f"{head}.block.1.{kind}"] = np.ones(inner, np.float32)
        heads[f"{head}.block.4.weight"] = np.ones((num_classes, inner, 1, 1), np.float32)
        heads[f"{head}.block.4.bias"] = np.ones(num_classes, np.float32)
    write_resnet18(weights, **heads, **{"fc.weight": None, "fc.bias": None})  # type: ignore[arg-type]
    described = path.with_name("hyperparams.json")
    described.write_text(
        json.dumps({"num_classes": 2, "algorithm": "fcn", "backbone": "resnet-18", **(settings or {})})
    )
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        archive.add(described, "hyperparams.json")
        archive.add(weights, "model_best.params")
    weights.unlink()
    described.unlink()


@pytest.fixture
def start(make_job: JobFactory, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Return a function that runs a job whose audit would fail, without MXNet, and returns why the job failed."""
    monkeypatch.setitem(sys.modules, "mxnet", None)  # whoever imports it gets an ImportError
    monkeypatch.setitem(sys.modules, "gluoncv", None)
    monkeypatch.setenv("PRETRAINED_DIR", str(tmp_path / "nothing"))

    def fail(**changes: Any) -> str:
        root = make_job(**changes)
        annotation = root / "input/data/train_annotation/train-0.png"
        Image.fromarray(np.full((40, 48), 77, np.uint8)).save(annotation)
        with pytest.raises(ClientError) as caught:
            run(Environment.read(root), threading.Event())
        audit = json.loads((root / "output/data/audit.json").read_text())
        assert bool(audit["channels"]) == ("77" in str(caught.value))  # nothing was audited before
        return str(caught.value)

    return fail


def test_missing_imagenet_weights_are_reported_first(start: Any) -> None:
    assert start(use_pretrained_model="True").startswith("No ImageNet weights found for backbone resnet-18: ")


def test_frozen_random_weights_are_reported_first(start: Any) -> None:
    reason = "_freeze_backbone and _freeze_batchnorm cannot freeze random weights. Set use_pretrained_model=True"
    assert start(_freeze_backbone="True", _freeze_batchnorm="True").startswith(reason)


def test_imagenet_weights_that_fit_leave_the_audit_to_fail(start: Any, tmp_path: Path) -> None:
    write_resnet18(tmp_path / "input/data/pretrained/own")
    assert "77" in start(use_pretrained_model="True", _freeze_backbone="True")


def test_imagenet_weights_of_another_shape_are_reported_first(start: Any, tmp_path: Path) -> None:
    wrong = {"layer4.1.conv2.weight": np.ones((512, 256, 3, 3), np.float32), "bn1.bias": None}
    write_resnet18(tmp_path / "input/data/pretrained/own", **wrong)
    assert start(use_pretrained_model="True").endswith(
        "own does not contain the weights of resnet-18: bn1.beta is missing; layer4.1.conv2.weight has the shape "
        "(512, 256, 3, 3) instead of (512, 512, 3, 3)"
    )


@pytest.mark.parametrize(
    ("archive", "job", "reason"),
    [
        ({}, {}, "77"),  # all is well with it
        ({}, {"algorithm": "psp"}, "the model in channel model has algorithm=fcn, but this job has algorithm=psp. "),
        (
            {},
            {"backbone": "resnet-34"},
            "the model in channel model has backbone=resnet-18, but this job has backbone=resnet-34. ",
        ),
        ({}, {"num_classes": "5"}, "the model in channel model has num_classes=2, but this job has num_classes=5. "),
        ({}, {"num_classes": "5", "_reset_head": "True"}, "77"),
        (
            {"num_classes": 3},
            {},
            "does not match the model of this job (fcn, resnet-18, 2 classes): head.block.4.weight has the shape "
            "(3, 128, 1, 1) instead of (2, 128, 1, 1)",
        ),
        ({"settings": {"algorithm": "unet"}}, {}, "does not describe a model"),
    ],
)
def test_model_of_another_job_is_reported_first(
    start: Any, tmp_path: Path, archive: dict[str, Any], job: dict[str, str], reason: str
) -> None:
    (tmp_path / "input/data/model").mkdir(parents=True)
    write_model(tmp_path / "input/data/model/model.tar.gz", **archive)
    assert reason in start(**job)


def test_corrupt_model_archive_is_reported_first(start: Any, tmp_path: Path) -> None:
    path = tmp_path / "input/data/model/model.tar.gz"
    path.parent.mkdir(parents=True)
    write_model(path)
    path.write_bytes(path.read_bytes()[:-2000])
    assert "model.tar.gz cannot be extracted" in start()
    path.rename(path.with_name("readme.txt")).write_text("no archive")
    assert "does not contain a model" in start()


def test_use_pretrained_model_false_has_no_effect_with_a_model(
    start: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "input/data/model").mkdir(parents=True)
    write_model(tmp_path / "input/data/model/model.tar.gz")
    with caplog.at_level(logging.INFO):
        start()
    reason = "use_pretrained_model=False has no effect, because the job starts from the weights in channel model"
    assert caplog.messages.count(reason) == 1


def test_check_needs_no_framework(make_job: JobFactory, tmp_path: Path) -> None:
    """In a process of its own, so that no other test can have imported it."""
    root = make_job(use_pretrained_model="True")
    code = (
        "import sys, threading; from container.training.job import main; code = main(threading.Event()); "
        "assert not {'mxnet', 'gluoncv'} & sys.modules.keys(); sys.exit(code)"
    )
    variables = {**os.environ, "SAGEMAKER_BASE_DIR": str(root), "PRETRAINED_DIR": str(tmp_path / "nothing")}
    done = subprocess.run([sys.executable, "-c", code], cwd=PROGRAM, env=variables, capture_output=True, text=True)
    assert done.returncode == 1 and "AssertionError" not in done.stderr, done.stderr
    assert (
        (root / "output/failure")
        .read_text()
        .startswith("ClientError: No ImageNet weights found for backbone resnet-18")
    )
