"""Full-size scores: the exported graph and the network itself, on any number of devices, find the same."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from pathlib import Path

import mxnet as mx
import numpy as np
import pytest
from PIL import Image

from container.engines.subprocess_engine import SubprocessEngine
from container.errors import JobCancelledError
from container.metrics import ConfusionMatrix
from container.mx.export import export_onnx
from container.mx.inference import evaluation as module
from container.mx.inference.evaluation import MXNetEvaluator, without_autotuning
from container.mx.networks.segmentation import SegmentationNetwork
from container.training.scoring import evaluators
from container.training.scoring.evaluation import Deadline, evaluate
from container.training.scoring.evaluators import SubprocessEvaluator
from tests.conftest import JobFactory
from tests.mx.test_export import CLASSES, build_network, reference
from tests.unit.training.scoring.test_evaluation import open_loader

pytestmark = pytest.mark.filterwarnings("ignore:Parameter .* is already initialized")

CPUS = [mx.cpu(0), mx.cpu(1)]


@pytest.fixture(scope="module")
def network() -> SegmentationNetwork:
    network = build_network("fcn")
    network.hybridize()
    network.collect_params().reset_ctx(CPUS)
    return network


@pytest.fixture
def root(make_job: JobFactory) -> Path:
    """A job with three validation pictures of different sizes and random labels."""
    root = make_job(validation=3, num_classes=str(CLASSES))
    rng = np.random.default_rng(4)
    for number, size in enumerate([(40, 48), (33, 97), (64, 24)]):
        data = root / "input/data"
        Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(data / f"validation/validation-{number}.jpg")
        labels = rng.integers(0, CLASSES, size).astype(np.uint8)
        Image.fromarray(labels).save(data / f"validation_annotation/validation-{number}.png")
    return root


def expected(network: SegmentationNetwork, root: Path) -> ConfusionMatrix:
    """Score picture by picture, from the files to the figures, without the program's reading."""
    confusion = ConfusionMatrix(CLASSES)
    for path in (root / "input/data/validation").iterdir():
        labels = np.asarray(Image.open(root / f"input/data/validation_annotation/{path.stem}.png"))
        confusion.update(labels, reference(network, np.asarray(Image.open(path))[None])[0].argmax(0))
    return confusion


def test_onnx_model_and_gluon_model_have_equal_metrics(
    network: SegmentationNetwork, root: Path, tmp_path: Path
) -> None:
    truth = expected(network, root)
    assert truth.counts.sum() == 40 * 48 + 33 * 97 + 64 * 24
    export_onnx(network, tmp_path / "model.onnx")
    until = threading.Event()
    with contextlib.closing(SubprocessEngine(tmp_path / "model.onnx", threads=1, memory=2**31, stop=until)) as engine:
        by_graph = evaluate(open_loader(root), SubprocessEvaluator("openvino", [engine]), CLASSES, until)
    for devices in (CPUS[:1], CPUS):
        by_network = evaluate(open_loader(root), MXNetEvaluator(network, devices, until), CLASSES, until)
        assert by_network.complete
        np.testing.assert_array_equal(by_network.confusions[0].counts, truth.counts)
    assert by_graph.complete
    assert by_graph.confusions[0].miou == pytest.approx(truth.miou, abs=1e-4)
    assert by_graph.confusions[0].pixel_accuracy == pytest.approx(truth.pixel_accuracy, abs=1e-4)


def test_each_device_processes_one_image_at_a_time(network: SegmentationNetwork, root: Path) -> None:
    evaluator = MXNetEvaluator(network, CPUS, threading.Event())
    seen: list[list[tuple[int, ...]]] = []
    answers = evaluator.predict

    def record(images: list[np.ndarray]) -> object:
        seen.append([image.shape for image in images])
        return answers(images)

    evaluator.predict = record  # type: ignore[method-assign, assignment]
    evaluate(open_loader(root), evaluator, CLASSES, threading.Event())
    assert [len(shapes) for shapes in seen] == [2, 1]


def test_image_that_does_not_fit_a_device_is_explained(
    network: SegmentationNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "memory_available", lambda: 2**31)
    evaluator = MXNetEvaluator(network, CPUS, threading.Event())
    largest = int((0.9 * 2**30 - 2**27) / (700 + 4.4 * CLASSES))
    assert evaluator.check_size(largest - 2) is None
    reason = evaluator.check_size(largest + 2)  # nor in the smallest tile: 1 million pixels, and 2**28 bytes beside it
    assert reason == "need about 1072 MB of memory on a device, and 921 MB are available"


def test_autotuning_is_disabled_during_the_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "MXNET_CUDNN_AUTOTUNE_DEFAULT"
    for before in (None, "2"):
        if before is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, before)
        with without_autotuning():
            assert os.environ[name] == "0"
        assert os.environ.get(name) == before


def test_stop_does_not_wait_for_the_devices(network: SegmentationNetwork) -> None:
    until = threading.Event()
    evaluator = MXNetEvaluator(network, CPUS, until)
    until.set()
    start = time.monotonic()
    with pytest.raises(JobCancelledError):
        evaluator.predict([np.zeros((490, 490, 3), np.uint8)] * 2)  # larger ones are given up layer by layer
    given_up = time.monotonic() - start
    mx.nd.waitall()
    assert given_up < 0.5 * (time.monotonic() - start)


def test_validation_skips_images_too_large_for_the_final_evaluation(
    network: SegmentationNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a child with the graph says of the same memory: 3 GB, of which the job itself has some."""
    export_onnx(network, tmp_path / "model.onnx")
    monkeypatch.setattr(evaluators, "memory_available", lambda: int(2.2 * 10**9))
    monkeypatch.setattr(module, "memory_available", lambda: int(2.2 * 10**9))
    until = Deadline(threading.Event(), 300)
    with evaluators.open_subprocess_evaluator("openvino", [tmp_path / "model.onnx"], until) as at_the_end:
        fitting = [pixels for pixels in range(10**6, 10**8, 10**5) if at_the_end.check_size(pixels) is None]
    most = evaluators.largest_final_image(network)
    assert most == pytest.approx(fitting[-1], rel=0.03)
    alone, with_them = (MXNetEvaluator(network, CPUS[:1], threading.Event(), bound) for bound in (None, most))
    assert alone.check_size(2 * fitting[-1]) is None  # in tiles
    assert with_them.check_size(fitting[-1] * 9 // 10) is None
    assert "need too much memory for the evaluation after training. The limit is about" in str(
        with_them.check_size(2 * fitting[-1])
    )
