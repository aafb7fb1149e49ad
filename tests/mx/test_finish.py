"""Final steps: errors of one product do not affect others, the report is always written, a stop takes effect soon."""

from __future__ import annotations

import dataclasses
import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np
import pytest
from PIL import Image

from container.artifact import model_directory
from container.artifact.classes import ClassEntry
from container.data.loader import Loader
from container.data.samples import open_samples
from container.environment import Environment
from container.errors import PlatformError
from container.hyperparameters import load
from container.mx.inference.evaluation import MXNetEvaluator
from container.mx.networks.segmentation import SegmentationNetwork
from container.mx.trainer import Trainer
from container.training.scoring import evaluators, quantization
from container.training.scoring import final_steps as module
from container.training.scoring.evaluation import Deadline
from container.training.scoring.evaluators import SubprocessEvaluator
from container.training.scoring.final_steps import FinalSteps
from tests.conftest import JobFactory, write_pair
from tests.mx.test_export import CLASSES, build_network

pytestmark = pytest.mark.filterwarnings("ignore:Parameter .* is already initialized")

HISTORY = [{"epoch": 0, "train_loss": 1.5, "mIOU": 0.25, "pixel_accuracy": 0.5}]


@pytest.fixture(scope="module")
def network() -> SegmentationNetwork:
    network = build_network("fcn", "resnet-18")
    network.hybridize()
    return network


@dataclasses.dataclass
class Job:
    """A job after training."""

    root: Path
    finish: FinalSteps
    stop: threading.Event

    def run(self, epoch_seconds: float = 1, job_seconds: float = 1) -> dict[str, Any]:
        """Run the final steps and return the report."""
        self.finish.run(HISTORY, epoch_seconds, job_seconds)
        return self.report()

    def report(self) -> dict[str, Any]:
        return dict(json.loads((self.root / "output/data/report.json").read_text()))

    def made(self) -> set[str]:
        always = {"model_best.params", "hyperparams.json", "check.json"}
        return {path.name for path in (self.root / "model").iterdir()} - always


@pytest.fixture
def make_finish(make_job: JobFactory, network: SegmentationNetwork) -> Callable[..., Job]:
    def make(**changes: Any) -> Job:
        root = make_job(num_classes=str(CLASSES), **changes)
        environment = Environment.read(root)
        job = load(environment.hyperparameters)
        stop = threading.Event()
        channels = [name for name in ("train", "validation", "test") if name in environment.channels]
        samples = {name: open_samples(environment, name, job) for name in channels}
        loaders = {name: Loader(samples[name], job, stop) for name in channels}
        trainer = Trainer(network, job, [mx.cpu()])
        trainer.save_weights(environment.model_dir / model_directory.BEST_WEIGHTS)
        model_directory.write_json(environment.model_dir / model_directory.HYPERPARAMETERS, job.as_dict())
        return Job(root, FinalSteps(environment, job, trainer, loaders, stop), stop)

    return make


NO_IMAGE = "this is neither a JPEG nor a PNG image, but text ('no image'): provide the raw bytes of a JPEG or PNG"


def add_test_channel(root: Path, count: int) -> None:
    for number in range(count):
        write_pair(root, "test", f"test-{number}", np.random.default_rng(number))


def test_mxnet_evaluates_without_an_onnx_model(
    make_finish: Callable[..., Job], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    by_graph = make_finish().run()
    assert by_graph["failed"] == {} and by_graph["epochs"] == HISTORY
    assert (by_graph["validation"]["engine"], by_graph["validation"]["complete"]) == ("openvino", True)

    def fail(*arguments: object) -> None:
        raise NotImplementedError("an operator has no translation to ONNX")

    job = make_finish()
    (job.root / "model/model.onnx").unlink()
    monkeypatch.setattr(module, "export_onnx", fail)
    report = job.run()
    assert report["failed"] == {"graph": "NotImplementedError: an operator has no translation to ONNX"}
    assert "model.onnx does not exist. The evaluation uses MXNet" in caplog.text
    assert (report["validation"]["engine"], report["validation"]["complete"]) == ("mxnet", True)
    assert report["validation"]["mIOU"] == pytest.approx(by_graph["validation"]["mIOU"], abs=1e-3)
    assert sum(map(sum, report["validation"]["confusion"])) == 3 * 39 * 48
    assert job.made() == set()


def test_each_gpu_evaluates_one_image_without_autotuning(
    make_finish: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, str | None]] = []
    answers = MXNetEvaluator.predict

    def record(evaluator: MXNetEvaluator, images: list[np.ndarray]) -> object:
        seen.append((len(images), os.environ.get("MXNET_CUDNN_AUTOTUNE_DEFAULT")))
        return answers(evaluator, images)

    monkeypatch.delenv("MXNET_CUDNN_AUTOTUNE_DEFAULT", raising=False)
    monkeypatch.setattr(evaluators, "_are_gpus", lambda devices: True)
    monkeypatch.setattr(MXNetEvaluator, "predict", record)
    job = make_finish()
    job.finish._trainer.network.collect_params().reset_ctx([mx.cpu(0), mx.cpu(1)])
    try:
        monkeypatch.setattr(job.finish._trainer, "load_weights", lambda path: None)
        report = job.run()
    finally:
        job.finish._trainer.network.collect_params().reset_ctx([mx.cpu()])
    assert seen == [(2, "0"), (1, "0")]
    assert "MXNET_CUDNN_AUTOTUNE_DEFAULT" not in os.environ
    assert (report["validation"]["engine"], report["validation"]["images"]) == ("mxnet", 3)
    assert job.made() == {"model.onnx"}


def test_error_of_one_product_does_not_affect_others(
    make_finish: Callable[..., Job], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_test_channel(tmp_path, 2)
    (tmp_path / "input/data/test/test-0.jpg").write_bytes(b"no image")
    real, write = FinalSteps._evaluate, model_directory.write_bytes

    def evaluate(finish: FinalSteps, channel: str) -> None:
        if channel == "validation":
            raise RuntimeError("a defect of ours")
        real(finish, channel)

    def full(path: Path, content: bytes) -> None:
        if path.name == "classes.json":
            raise PlatformError(f"the disk is full. {path} cannot be written")
        write(path, content)

    job = make_finish(_quantize="True", train=2)
    monkeypatch.setattr(FinalSteps, "_evaluate", evaluate)
    monkeypatch.setattr(model_directory, "write_bytes", full)
    monkeypatch.setattr(quantization, "_run", lambda *arguments: 1 / 0)
    monkeypatch.setattr(Loader, "classes", {0: ClassEntry("ground", (0, 0, 0))})
    report = job.run()
    assert report["failed"] == {
        "classes": f"the disk is full. {job.root}/model/classes.json cannot be written",
        "validation": "RuntimeError: a defect of ours",
        "int8": "ZeroDivisionError: division by zero",
    }
    assert job.made() == {"model.onnx"}
    test = report["test"]
    assert (test["images"], test["of"], test["complete"]) == (1, 2, False)
    assert test["skipped"] == [{"image": f"{job.root}/input/data/test/test-0.jpg", "reason": NO_IMAGE}]


def test_statistics_prefer_the_test_channel(make_finish: Callable[..., Job], tmp_path: Path) -> None:
    path = tmp_path / "output/data/statistics.json"
    validation = make_finish().run()["validation"]
    content = json.loads(path.read_text())
    assert content["dataset"] == {"channel": "validation", "item_count": 3, "of": 3}
    metrics = content["multiclass_classification_metrics"]
    assert metrics["mIOU"]["value"] == validation["mIOU"]
    assert metrics["accuracy"]["value"] == validation["pixel_accuracy"]

    add_test_channel(tmp_path, 2)
    test = make_finish().run()["test"]
    content = json.loads(path.read_text())
    assert content["dataset"] == {"channel": "test", "item_count": 2, "of": 2}
    assert content["multiclass_classification_metrics"]["mIOU"]["value"] == test["mIOU"]


def test_files_of_an_earlier_job_are_removed(make_finish: Callable[..., Job], monkeypatch: pytest.MonkeyPatch) -> None:
    job = make_finish(_report_minutes="0")
    left = ["model/check.json", "model/classes.json", "model/model.onnx", "model/model.int8.onnx"]
    (job.root / "output/data").mkdir(parents=True)
    for name in (*left, "output/data/statistics.json"):
        (job.root / name).write_text("an earlier job's")
    monkeypatch.setattr(module, "export_onnx", lambda *arguments: 1 / 0)
    assert list(job.run()["failed"]) == ["graph"]
    assert job.made() == set()
    assert json.loads((job.root / "model/check.json").read_text())
    assert not (job.root / "output/data/statistics.json").exists()


def test_unreadable_weights_fail_the_job_with_a_report(make_finish: Callable[..., Job]) -> None:
    job = make_finish()
    (job.root / "model/model_best.params").write_bytes(b"cut")
    with pytest.raises(mx.MXNetError):
        job.run()
    report = job.report()
    assert report["epochs"] == HISTORY and list(report["failed"]) == ["everything made from the best weights"]


def test_report_that_cannot_be_written_is_logged(
    make_finish: Callable[..., Job], caplog: pytest.LogCaptureFixture
) -> None:
    job = make_finish()
    (job.root / "output").mkdir(exist_ok=True)
    (job.root / "output/data").write_text("a file where the directory should be")
    job.finish.run(HISTORY, 1, 1)
    assert "The report is not complete: " in caplog.text and "report.json could not be written" in caplog.text
    assert job.made() == {"model.onnx"}


def test_zero_minutes_skip_the_evaluation(make_finish: Callable[..., Job], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    job = make_finish(_report_minutes="0", _quantize="True")
    assert job.run() == {"epochs": HISTORY, "failed": {}}
    assert job.made() == {"model.onnx"}
    assert "_report_minutes is 0: the job skips the full-resolution evaluation and the int8 model." in caplog.text


def test_time_limit_during_the_evaluation_leaves_a_sample(
    make_finish: Callable[..., Job], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    job = make_finish(validation=4, _report_minutes="30")
    answers, asked = SubprocessEvaluator.predict, []
    until: list[Deadline] = []

    class Remembered(Deadline):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            until.append(self)

    def slow(evaluator: SubprocessEvaluator, images: list[np.ndarray]) -> object:
        asked.append(images)
        if len(asked) == 3:
            until[0]._end = 0
        return answers(evaluator, images)

    monkeypatch.setattr(SubprocessEvaluator, "predict", slow)
    monkeypatch.setattr(module, "Deadline", Remembered)
    validation = job.run()["validation"]
    assert (validation["images"], validation["of"], validation["complete"]) == (2, 4, False)
    assert len(validation["scored"]) == 2 and sum(map(sum, validation["confusion"])) == 2 * 39 * 48
    assert validation["reason"] == "the time limit was reached, so these images are a sample. Increase _report_minutes"
    assert "channel validation covers 2 of 4 images, which report.json lists: the time limit was reached" in caplog.text


def test_time_limit_before_the_first_image_is_reported(make_finish: Callable[..., Job]) -> None:
    report = make_finish(_report_minutes="0.0001").run()
    assert report["failed"] == {"validation": "the time limit was reached first. Increase _report_minutes"}


@pytest.mark.parametrize(
    ("minutes", "epoch_seconds", "seconds"), [(None, 10, 300), (None, 1000, 2000), ("0.5", 1000, 30), ("90", 1, 5400)]
)
def test_evaluations_share_the_time(
    make_finish: Callable[..., Job],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    minutes: str | None,
    epoch_seconds: float,
    seconds: float,
) -> None:
    add_test_channel(tmp_path, 1)
    job = make_finish(_quantize="True", _report_minutes=minutes)
    given: list[float] = []

    def note(finish: FinalSteps, *arguments: object) -> None:
        given.append(finish._next_share())

    monkeypatch.setattr(module, "export_onnx", lambda *arguments: None)
    monkeypatch.setattr(FinalSteps, "_evaluate", note)
    monkeypatch.setattr(FinalSteps, "_quantize", note)
    job.run(epoch_seconds)
    assert given == pytest.approx([seconds / 3, seconds / 2, seconds], abs=1)


@pytest.mark.parametrize("step", ["scoring", "quantizing", "comparing"])
def test_stop_takes_effect_in_every_step(
    make_finish: Callable[..., Job], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    stopped: list[float] = []
    answers, run, calls = SubprocessEvaluator.predict, quantization._run, []
    job = make_finish(_quantize="True", validation=1, train=2)
    size = (48, 40) if step == "quantizing" else (1600, 1600)  # the large one takes longer than a stop
    for folder, mode in (("validation", "RGB"), ("validation_annotation", "L")):
        (path,) = (tmp_path / "input/data" / folder).iterdir()
        Image.new(mode, size).save(path)

    def stop() -> None:
        stopped.append(time.monotonic())
        job.stop.set()

    def answer(evaluator: SubprocessEvaluator, images: list[np.ndarray]) -> object:
        threading.Timer(0.3, stop).start()
        return answers(evaluator, images)

    def quantize(*arguments: Any) -> None:
        calls.append(arguments)
        if step == "quantizing":
            threading.Timer(0.3, stop).start()
        run(*arguments)

    if step == "comparing":
        monkeypatch.setattr(FinalSteps, "_evaluate", lambda finish, channel: None)
    if step != "quantizing":
        monkeypatch.setattr(SubprocessEvaluator, "predict", answer)
    monkeypatch.setattr(quantization, "_run", quantize)
    report = job.run()
    assert time.monotonic() - stopped[0] < 2
    expected = {"scoring": ["validation", "int8"]}.get(step, ["int8"])
    assert report["failed"] == dict.fromkeys(expected, "the job was stopped first")
    assert job.made() == {"model.onnx"}
    assert len(calls) == (step != "scoring")


def test_stopped_job_exports_the_onnx_model(make_finish: Callable[..., Job]) -> None:
    job = make_finish(_quantize="True")
    job.stop.set()
    assert job.run()["failed"] == dict.fromkeys(["validation", "int8"], "the job was stopped first")
    assert job.made() == {"model.onnx"}
