"""The end of a real job: a stop and a small disk."""

from __future__ import annotations

import json
import signal
import time

import mxnet as mx
import pytest
from PIL import Image

from container.mx.networks.segmentation import SegmentationNetwork, load_weights
from container.training.checkpoints.directory import CheckpointDirectory
from tests.conftest import JobFactory, SmallDisk, wait_until
from tests.job.interruptions import interrupt_at
from tests.job.test_train import failure, start


def test_sigterm_while_scores_are_made_leaves_model_and_report(make_job: JobFactory) -> None:
    root = make_job(train=2, validation=1)
    for folder, mode in (("validation", "RGB"), ("validation_annotation", "L")):
        (path,) = (root / "input/data" / folder).iterdir()
        Image.new(mode, (2000, 2000)).save(path)  # half a minute's work for two cores
    process = start(root)
    try:
        wait_until(lambda: (root / "model/model.onnx").exists() or process.poll() is not None, 240)
        process.send_signal(signal.SIGTERM)
        stopped = time.monotonic()
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0, out + err
    assert time.monotonic() - stopped < 30
    report = json.loads((root / "output/data/report.json").read_text())
    assert len(report["epochs"]) == 1 and report["failed"] == {"validation": "the job was stopped first"}
    names = {path.name for path in (root / "model").iterdir()}
    assert names == {"hyperparams.json", "model_best.params", "model_algo-1", "model.onnx", "check.json"}


def test_sigterm_while_a_large_image_is_validated_leaves_model_and_checkpoint(make_job: JobFactory) -> None:
    """psp sees the whole image at once: there are no tiles between which it could stop."""
    root = make_job(train=2, validation=1, algorithm="psp", epochs="2", _validation="full")
    (root / "checkpoints").mkdir()
    for folder, mode in (("validation", "RGB"), ("validation_annotation", "L")):
        (path,) = (root / "input/data" / folder).iterdir()
        Image.new(mode, (1400, 1000)).save(path)
    process = start(root)
    log = interrupt_at(process, "Serializing model to", signal.SIGTERM, within=30)
    assert process.returncode == 0, log
    assert "validation mIOU" not in log and "stopping on request, in epoch 0" in log
    found = CheckpointDirectory(root / "checkpoints").newest()
    assert found and found.progress.name == "0-1" and found.progress.trained
    for name in ("model_best.params", "model_algo-1"):
        load_weights(SegmentationNetwork("psp", "resnet-18", 2), root / "model" / name, [mx.cpu()])
    assert {path.name for path in (root / "model").iterdir()} >= {"hyperparams.json", "model_best.params"}
    assert not list((root / "model").glob(".*"))


def test_a_disk_that_is_too_small_is_named_before_the_first_epoch(make_job: JobFactory, small_disk: SmallDisk) -> None:
    root = make_job(backbone="resnet-50")
    with small_disk(root / "model", 300 * 2**20):
        reason = failure(root)
    assert reason.startswith(
        f"PlatformError: the disk is full: use a larger volume (volume_size). model_best.params, model_algo-1, "
        f"model.onnx and a temporary copy do not fit in {root}/model: they need "
    )
    needed, free = (int(word) for word in reason.split() if word.isdecimal())
    assert needed == pytest.approx(3 * 142e6 + 132e6, rel=0.01) and free <= 300 * 2**20
