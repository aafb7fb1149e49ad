"""Every value of every choice trains, and what was trained can be trained on."""

from __future__ import annotations

import json
import tarfile
import threading
from pathlib import Path

import mxnet as mx
import numpy as np
import pytest

from container.engines.loading import load_engine
from container.environment import Environment
from container.errors import ClientError
from container.mx.networks.architectures import create_network
from container.mx.networks.segmentation import load_weights
from container.serving.settings import ServeSettings
from container.training.run import run as run_job
from tests.conftest import JobFactory
from tests.job.test_train import run

CHOICES: list[dict[str, str]] = [
    {"algorithm": "fcn", "backbone": "resnet-50", "optimizer": "sgd", "lr_scheduler": "poly", "early_stopping": "True"},
    {"algorithm": "psp", "backbone": "resnet-50", "optimizer": "nag", "lr_scheduler": "step", "lr_scheduler_step": "1"},
    {"algorithm": "deeplab", "backbone": "resnet-50", "optimizer": "adam", "lr_scheduler": "cosine", "syncbn": "True"},
    {"algorithm": "fcn", "backbone": "resnet-101", "optimizer": "rmsprop", "_hybrid": "True", "_ema": "0.9"},
    {"algorithm": "psp", "backbone": "resnet-101", "optimizer": "adagrad", "_aux_loss": "False"},
    {"algorithm": "deeplab", "backbone": "resnet-101", "optimizer": "adadelta", "_kvstore": "local"},
    {
        "algorithm": "psp",
        "backbone": "resnet-18",
        "optimizer": "adamw",
        "_loss": "ce+lovasz",
        "_ema": "0.9",
        "_class_weights": "enet",
        "_validation": "full",
        "_rare_crops": "0.5",
    },
    {
        "algorithm": "deeplab",
        "backbone": "resnet-34",
        "optimizer": "sgd",
        "_loss": "ohem",
        "_accumulate": "2",
        "_clip_norm": "0.5",
        "_augmentation": "strong",
        "_warmup_iterations": "2",
        "_on_divergence": "retry",
    },
    {"algorithm": "fastscnn", "optimizer": "adam"},
]


def train(root: Path) -> dict[str, np.ndarray]:
    """Run the job in this process and return its last weights."""
    run_job(Environment.read(root), threading.Event())
    return {name: array.asnumpy() for name, array in mx.nd.load(str(root / "model/model_algo-1")).items()}


@pytest.mark.parametrize("choice", CHOICES, ids=lambda choice: "-".join(list(choice.values())[:3]))
def test_a_job_of_every_choice_leaves_a_model(make_job: JobFactory, choice: dict[str, str]) -> None:
    root = make_job(train=2, validation=1, **choice)
    weights = train(root)
    assert all(np.isfinite(weight).all() for weight in weights.values())
    settings = json.loads((root / "model/hyperparams.json").read_text())
    assert {name: str(settings[name]) for name in choice} == choice
    network = create_network(settings["algorithm"], 2, settings.get("backbone"))
    load_weights(network, root / "model/model_best.params", [mx.cpu()])
    report = json.loads((root / "output/data/report.json").read_text())
    assert len(report["epochs"]) == 1 and np.isfinite(report["epochs"][0]["train_loss"])


def test_one_seed_gives_one_model_and_an_earlier_job_seeds_the_next(make_job: JobFactory) -> None:
    first = train(make_job(train=2, validation=1))
    root = make_job(train=2, validation=1)
    again = train(root)
    assert all(np.allclose(first[name], again[name], rtol=1e-3, atol=1e-5) for name in first)

    channel = root / "input/data/model"
    channel.mkdir()
    with tarfile.open(channel / "model.tar.gz", "w:gz", compresslevel=1) as archive:
        for name in ("hyperparams.json", "model_best.params"):
            archive.add(root / "model" / name, name)
    make_job(train=2, validation=1, learning_rate="1e-9", _seed="8")
    seeded = train(root)
    trained = [name for name in first if name.endswith(("weight", "bias"))]
    assert all(np.allclose(seeded[name], first[name], atol=1e-6) for name in trained)
    make_job(train=2, validation=1, num_classes="3")
    with pytest.raises(
        ClientError,
        match=r"the model in channel model has num_classes=2, but this job has num_classes=3\. To reinitialize",
    ):
        train(root)


def test_half_precision_trains_where_the_processor_can(make_job: JobFactory) -> None:
    root = make_job(train=2, validation=1, precision_dtype="float16")
    code, out, err = run(root)
    assert code == 0, out + err
    native = "avx512bw" in Path("/proc/cpuinfo").read_text()
    assert ("This job trains in float32" in out) != native
    settings = json.loads((root / "model/hyperparams.json").read_text())
    assert settings["precision_dtype"] == ("float16" if native else "float32")
    assert load_engine(root / "model", ServeSettings(root / "model", precision="float32")).num_classes == 2


def test_int8_is_kept_only_within_its_tolerance(make_job: JobFactory) -> None:
    root = make_job(train=2, validation=1, _quantize="True", _quantize_tolerance="1")
    train(root)
    report = json.loads((root / "output/data/report.json").read_text())["int8"]
    assert report["kept"] and (root / "model/model.int8.onnx").is_file()
    assert report["mIOU"]["float32"] - report["mIOU"]["int8"] <= 1
    assert 0 <= report["agreement"] <= 1
    assert load_engine(root / "model", ServeSettings(root / "model")).precision == "int8"
