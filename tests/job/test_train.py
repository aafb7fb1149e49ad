"""The real `train` as the platform starts it: its log, its files, its exit."""

from __future__ import annotations

import ast
import contextlib
import csv
import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np
import pytest
from PIL import Image

from container import hyperparameters
from container.artifact.check import read_check
from container.engines.loading import load_engine
from container.metrics import METRIC_DEFINITIONS
from container.mx.networks.segmentation import SegmentationNetwork, load_weights
from container.serving.settings import ServeSettings
from tests.conftest import PROGRAM, JobFactory, job_factory
from tests.job import published_log
from tests.job.published_log import NOT_PRINTED, OWN, PUBLISHED, PUBLISHED_METRICS

PREFIX = r"\[\d\d/\d\d/\d{4} \d\d:\d\d:\d\d (INFO|WARNING|ERROR) \d+\] "


def start(root: Path, **variables: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(PROGRAM / "train")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd="/",
        env={**os.environ, "SAGEMAKER_BASE_DIR": str(root), **variables},
    )


def run(root: Path, **variables: str) -> tuple[int, str, str]:
    process = start(root, **variables)
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """A job of two epochs that ran to its end."""
    root = tmp_path_factory.mktemp("job")
    job_factory(root)(train=5, epochs="2", _logging_frequency="1")
    code, out, err = run(root)
    assert code == 0, out + err
    return root, out, err


def test_the_published_expressions_find_every_epochs_figures(finished: tuple[Path, str, str]) -> None:
    root, out, _ = finished
    found = {name: [float(value) for value in re.findall(pattern, out)] for name, pattern in METRIC_DEFINITIONS.items()}
    report = json.loads((root / "output/data/report.json").read_text())
    assert found["train:loss"] == [epoch["train_loss"] for epoch in report["epochs"]]
    assert found["validation:mIOU"] == [epoch["mIOU"] for epoch in report["epochs"]]
    assert found["validation:pixel_accuracy"] == [epoch["pixel_accuracy"] for epoch in report["epochs"]]
    assert found["train:progress"] == [50, 100]
    assert len(found["train:throughput"]) == len(found["validation:throughput"]) == 2
    assert min(found["train:throughput"] + found["validation:throughput"]) > 0


def test_the_log_tells_the_job_in_the_built_ins_order(finished: tuple[Path, str, str]) -> None:
    root, out, err = finished
    lines = [line for line in out.splitlines() if not line.startswith("#metrics ")]
    assert all(re.match(PREFIX, line) for line in lines), out
    texts = [re.sub(PREFIX, "", line) for line in lines]
    story = [
        r"#label_map train :\{'scale': 1\}",
        r"Number of GPUs being used: 0",
        r"LRScheduler setup: iters per epoch: 2, num_epochs 2",
        r"#progress_notice\. epoch: 0, iterations: 1 speed: \S+ samples/sec learning_rate: 0\.000772",
        r"#progress_notice\. epoch: 0, iterations: 2 speed: \S+ samples/sec learning_rate: 0\.000536",
        r"#quality_metric\. host: algo-1, epoch: 0, train loss: \S+ \.",
        r"#throughput_metric\. host: algo-1, epoch: 0, train throughput: \S+ samples/sec\.",
        r"#quality_metric\. host: algo-1, epoch: 0, validation pixel_accuracy: \S+ \.",
        r"#quality_metric\. host: algo-1, epoch: 0, validation mIOU: \S+ \.",
        r"#throughput_metric\. host: algo-1, epoch: 0, validation throughput: \S+ samples/sec\.",
        rf"Serializing model to {root}/model/model_best\.params",
        r"#progress_metric: host=algo-1, completed 50 % of epochs",
        rf"Serializing model to {root}/model/model_algo-1",
    ]
    position = 0
    for expected in story:
        position = next((i for i in range(position, len(texts)) if re.fullmatch(expected, texts[i])), -1) + 1
        assert position, f"{expected} is not in its place in\n{out}"
    assert "it/s" not in out + err and "\r" not in out + err  # no progress bar without a terminal


def test_kinds_of_lines_equal_the_published_ones(finished: tuple[Path, str, str]) -> None:
    _, out, _ = finished
    lines, _ = published_log.split(out)
    printed = {name for name, kind in PUBLISHED.items() if any(re.fullmatch(kind, line) for line in lines)}
    assert set(PUBLISHED) - printed == set(NOT_PRINTED)
    known = [*PUBLISHED.values(), *OWN.values()]
    assert [line for line in lines if not any(re.fullmatch(kind, line) for kind in known)] == []
    assert [name for name, kind in OWN.items() if not any(re.fullmatch(kind, line) for line in lines)] == []
    order = [
        next(at for at, line in enumerate(lines) if re.fullmatch(PUBLISHED[name], line))
        for name in PUBLISHED
        if name not in NOT_PRINTED
    ]
    assert order == sorted(order)


def test_metrics_lines_have_the_published_dimensions_and_names(finished: tuple[Path, str, str]) -> None:
    _, out, _ = finished
    _, contents = published_log.split(out)
    first: dict[Any, Any] = {}
    for content in contents:
        assert list(content) == ["Metrics", "EndTime", "Dimensions", "StartTime"]
        assert all(list(value) == ["count", "max", "sum", "min"] for value in content["Metrics"].values())
        if content["Dimensions"]["Operation"] == "training":
            first.setdefault(content["Dimensions"].get("Meta"), content)
    assert {meta: each["Dimensions"] for meta, each in first.items()} == {
        meta: dimensions for meta, (dimensions, _) in PUBLISHED_METRICS.items()
    }
    for meta, (_, names) in PUBLISHED_METRICS.items():
        own = ["train_loss", "train_throughput"] if meta == "training_data_iter" else []
        assert list(first[meta]["Metrics"]) == names + own
    assert "Meta" not in contents[-1]["Dimensions"] and out.splitlines()[-1].startswith("#metrics ")
    # 2 epochs: 2 iterations of 2 images, then 3
    counts = {name: value["max"] for name, value in contents[-3]["Metrics"].items() if "_" not in name}
    assert list(counts.values()) == [3, 3, 6, 5, 10, 6, 2]
    closing = {name: value["sum"] for name, value in contents[-1]["Metrics"].items()}
    assert closing["epochs"] == 2 and 0 < closing["setuptime"] < closing["totaltime"] < 300_000


def test_final_configuration_can_be_pasted_back(finished: tuple[Path, str, str]) -> None:
    root, out, _ = finished
    (text,) = re.findall(r"Final configuration: (.*)", out)
    pasted = json.loads(text)
    assert ast.literal_eval(text) == pasted  # a Python dict too, as in the published line
    assert all(isinstance(value, str) for value in pasted.values())
    given = json.loads((root / "input/config/hyperparameters.json").read_text())
    assert given.items() <= pasted.items()
    job = json.loads((root / "model/hyperparams.json").read_text())
    assert hyperparameters.load(pasted).as_dict() == job


def test_the_model_directory_holds_what_becomes_the_archive(finished: tuple[Path, str, str]) -> None:
    root, _, _ = finished
    assert {"hyperparams.json", "model_best.params", "model_algo-1"} <= {
        path.name for path in (root / "model").iterdir()
    }
    assert not [path for path in (root / "model").iterdir() if path.name.startswith(".")]
    settings = json.loads((root / "model/hyperparams.json").read_text())
    assert (settings["num_classes"], settings["algorithm"], settings["crop_size"]) == (2, "fcn", 32)
    for name in ("model_best.params", "model_algo-1"):
        load_weights(SegmentationNetwork("fcn", "resnet-18", 2), root / "model" / name, [mx.cpu()])


def test_the_report_counts_every_labeled_pixel(finished: tuple[Path, str, str]) -> None:
    root, _, _ = finished
    validation = json.loads((root / "output/data/report.json").read_text())["validation"]
    assert validation["images"] == 3
    assert sum(map(sum, validation["confusion"])) == 3 * 39 * 48  # the first line of each is ignored
    assert 0 <= validation["mIOU"] <= 1


def test_the_archive_says_what_its_model_answers(finished: tuple[Path, str, str]) -> None:
    root, out, _ = finished
    check = read_check(root / "model")
    assert check and check.int8 == ""
    network = SegmentationNetwork("fcn", "resnet-18", 2)
    load_weights(network, root / "model/model_best.params", [mx.cpu()])
    logits = network(mx.nd.array(check.image[None], dtype="uint8"))
    np.testing.assert_array_equal(check.mask, logits.argmax(axis=1).asnumpy()[0])
    np.testing.assert_allclose(check.probabilities, logits.softmax(axis=1).asnumpy()[0][:, ::9, ::9], atol=1e-4)
    report = json.loads((root / "output/data/report.json").read_text())["int8"]
    assert not report["kept"] and "Set _quantize=True to write it anyway" in report["reason"]
    assert f"The job writes no int8 model: {report['reason']}" in out
    assert load_engine(root / "model", ServeSettings(root / "model")).num_classes == 2


def test_page_and_table_say_what_the_report_says(finished: tuple[Path, str, str]) -> None:
    data = finished[0] / "output/data"
    report = json.loads((data / "report.json").read_text())
    rows = list(csv.DictReader((data / "metrics.csv").read_text().splitlines()))
    for column in ("train_loss", "mIOU", "pixel_accuracy", "learning_rate", "train_throughput"):
        assert [float(row[column]) for row in rows] == [epoch[column] for epoch in report["epochs"]]
    page = (data / "report.html").read_text()
    assert f"mIOU {report['validation']['mIOU']:.3f} on 3 full validation images" in page
    assert "finished: 2 of 2 epochs are complete" in page and "validation/validation-0.jpg" in page


def test_sigterm_leaves_the_weights_and_a_clean_exit(make_job: JobFactory) -> None:
    root = make_job(epochs="1000")
    process = start(root)
    assert process.stdout
    for line in process.stdout:
        if "Serializing model" in line:
            break
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, out + err
    assert "stopping on request" in out
    for name in ("model_best.params", "model_algo-1"):
        load_weights(SegmentationNetwork("fcn", "resnet-18", 2), root / "model" / name, [mx.cpu()])
    assert not (root / "output/failure").exists()


def failure(root: Path, **variables: str) -> str:
    """Run a job that must fail, and return its failure file."""
    code, out, err = run(root, **variables)
    assert code == 1, out + err
    reason = (root / "output/failure").read_text()
    assert len(reason) <= 1024
    assert reason.splitlines()[0] in out
    assert "Traceback" in out and "Traceback" not in reason
    return reason


def test_faults_of_the_user_come_before_the_framework_is_imported(make_job: JobFactory) -> None:
    poisoned = make_job() / "poison"  # importing either framework would end the job differently
    for name in ("mxnet", "gluoncv"):
        (poisoned / name).mkdir(parents=True)
        (poisoned / name / "__init__.py").write_text("raise SystemExit('imported')")
    root = make_job(algorithm="unet", epoch="3")
    assert failure(root, PYTHONPATH=str(poisoned)) == (
        "ClientError: 2 hyperparameters are not valid: algorithm must be fcn, psp, deeplab or fastscnn, not 'unet'; "
        "epoch is unknown (did you mean epochs?)"
    )
    root = make_job()
    (root / "input/data/train_annotation/train-1.png").unlink()
    assert failure(root, PYTHONPATH=str(poisoned)) == (
        "ClientError: channel train and its annotations do not match. 1 of 5 images and 0 of 4 annotations have no "
        "partner. Each image needs a .png annotation with the same name (extensions can differ). Add or remove files: "
        f"{root}/input/data/train/train-1.jpg has no annotation"
    )


def test_missing_pretrained_weights_name_file_variable_and_way_out(make_job: JobFactory, tmp_path: Path) -> None:
    reason = failure(make_job(backbone=None, use_pretrained_model="True"), PRETRAINED_DIR=str(tmp_path / "weights"))
    assert reason.startswith(
        f"ClientError: No ImageNet weights found for backbone resnet-50: {tmp_path}/weights contains no"
    )
    assert "contains no resnet50_v1s-*.params file" in reason
    assert "PRETRAINED_DIR" in reason and "use_pretrained_model=False" in reason


def test_a_wrong_pixel_is_named_with_its_file(make_job: JobFactory) -> None:
    root = make_job()
    Image.new("L", (48, 40), 9).save(root / "input/data/train_annotation/train-2.png")
    assert failure(root).startswith(
        f"ClientError: annotation of {root}/input/data/train/train-2.jpg: pixel value 9 is not a valid class ID "
        "(num_classes is 2). Increase num_classes"
    )


def test_a_person_at_a_terminal_sees_a_progress_bar(make_job: JobFactory) -> None:
    terminal, end = pty.openpty()
    fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    variables = {**os.environ, "SAGEMAKER_BASE_DIR": str(make_job())}
    process = subprocess.Popen([sys.executable, str(PROGRAM / "train")], stdout=end, stderr=end, env=variables)
    os.close(end)
    shown = b""
    with contextlib.suppress(OSError):  # the terminal is gone when the job is
        while piece := os.read(terminal, 65536):
            shown += piece
    assert process.wait(timeout=60) == 0, shown.decode()
    assert b"epoch 0:" in shown and b"/2 [" in shown  # tqdm's: 1/2 [00:01<00:01, …]
    assert re.search(PREFIX.encode() + rb"#quality_metric\. host: algo-1, epoch: 0, train loss:", shown)
