"""Full-size scores on GPUs: nothing is tuned for a new size, memory stays, and the figures are the CPU's."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path

import mxnet as mx
import pytest

from container.engines.subprocess_engine import SubprocessEngine
from container.mx.inference.evaluation import MXNetEvaluator, without_autotuning
from container.training.scoring.evaluation import evaluate
from container.training.scoring.evaluators import SubprocessEvaluator
from tests.conftest import job_factory
from tests.gpu.cards import compute_capabilities, used_megabytes
from tests.gpu.jobs import run_job
from tests.gpu.steps import memory_of_sizes, seconds_of_sizes, steady_network
from tests.unit.training.scoring.test_evaluation import open_loader


@pytest.fixture
def evaluator() -> MXNetEvaluator:
    devices = [mx.gpu(index) for index in range(len(compute_capabilities()))]
    return MXNetEvaluator(steady_network(devices), devices, threading.Event())


def test_a_new_size_costs_no_tuning(evaluator: MXNetEvaluator) -> None:
    with without_autotuning():
        (_, _), (new, known) = seconds_of_sizes(evaluator, [(480, 640), (488, 600)])
    assert new < 3 * known + 0.5, f"the second new size took {new:.2f} s, again {known:.2f} s"


def test_fifty_sizes_leave_no_memory_behind(evaluator: MXNetEvaluator) -> None:
    def used() -> int:
        mx.nd.waitall()
        for index in range(len(compute_capabilities())):
            mx.gpu(index).empty_cache()
        return max(used_megabytes())

    sizes = [(200 + 11 * number, 700 - 7 * number) for number in range(50)]
    with without_autotuning():
        found = memory_of_sizes(evaluator, sizes, used)
    assert max(found[10:]) < max(found[:10]) + 300, found


def test_a_jobs_scores_are_the_cpus(tmp_path: Path) -> None:
    root = job_factory(tmp_path)(train=8, validation=5, epochs="2", mini_batch_size="4")
    by_gpu = run_job(root)
    assert by_gpu.code == 0, by_gpu.log
    report = by_gpu.report
    assert report["failed"] == {} and report["validation"]["engine"] == "mxnet" and report["validation"]["complete"]
    with contextlib.closing(
        SubprocessEngine(root / "model/model.onnx", threads=2, memory=2**31, stop=threading.Event())
    ) as engine:
        by_cpu = evaluate(open_loader(root), SubprocessEvaluator("openvino", [engine]), 2, threading.Event())
    assert report["validation"]["mIOU"] == pytest.approx(by_cpu.confusions[0].miou, abs=0.01)
