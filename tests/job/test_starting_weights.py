"""Whole jobs that start from weights in a channel: each container, a whole network, what is frozen or refused."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path

import mxnet as mx
import numpy as np
import pytest

from container.environment import Environment
from container.errors import ClientError
from container.training.run import run as run_here
from tests.conftest import JobFactory
from tests.job.test_train import run
from tests.mx.published import Weights, random_weights, write_gluoncv, write_imgclsmob, write_timm


def add_channel(root: Path, name: str, content_type: str | None) -> Path:
    """Add a channel as the platform describes it, beside those of the images."""
    folder = root / "input/data" / name
    folder.mkdir()
    config = {
        channel.name: {"TrainingInputMode": "File", "ContentType": "image/png"}
        for channel in (root / "input/data").iterdir()
    }
    config[name] = {"TrainingInputMode": "File"} | ({"ContentType": content_type} if content_type else {})
    (root / "input/config/inputdataconfig.json").write_text(json.dumps(config))
    return folder


def last_weights(root: Path) -> Weights:
    return {name: array.asnumpy() for name, array in mx.nd.load(str(root / "model/model_algo-1")).items()}


@pytest.mark.parametrize(
    ("write", "backbone", "content_type"),
    [
        (write_gluoncv, "resnet-18", None),
        (write_imgclsmob, "resnet-50", "application/x-sagemaker-model"),
        (write_timm, "resnet-34", "application/octet-stream"),
    ],
)
def test_a_job_starts_from_each_container(
    make_job: JobFactory,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    write: Callable[[Path, Weights], None],
    backbone: str,
    content_type: str | None,
) -> None:
    monkeypatch.setenv("PRETRAINED_DIR", str(tmp_path / "nothing"))
    root = make_job(
        train=2,
        validation=1,
        backbone=backbone,
        use_pretrained_model=None,
        learning_rate="1e-6",
        _freeze_backbone="True",
    )
    weights = random_weights(backbone)
    write(add_channel(root, "pretrained", content_type) / "brought", weights)
    run_here(Environment.read(root), threading.Event())
    trained = last_weights(root)
    backbones = {name for name in trained if not name.startswith(("head.", "auxlayer."))}
    assert backbones == {name for name in weights if not name.startswith("fc.")}
    assert all(np.array_equal(trained[name], weights[name]) for name in backbones)
    settings = json.loads((root / "model/hyperparams.json").read_text())
    assert (settings["_freeze_backbone"], settings["use_pretrained_model"]) == (True, True)
    assert (root / "model/model.onnx").is_file()


def test_more_classes_are_learnt_from_an_earlier_model(make_job: JobFactory, caplog: pytest.LogCaptureFixture) -> None:
    changes = {"backbone": "resnet-18", "algorithm": "psp", "learning_rate": "1e-9", "train": 2, "validation": 1}
    root = make_job(num_classes="2", **changes)
    run_here(Environment.read(root), threading.Event())
    first = last_weights(root)
    folder = add_channel(root, "model", "application/x-sagemaker-model")
    for name in ("hyperparams.json", "model_best.params"):
        (root / "model" / name).rename(folder / name)
    make_job(num_classes="3", **changes)
    with pytest.raises(ClientError, match=r"has num_classes=2, but this job has num_classes=3. To reinitialize"):
        run_here(Environment.read(root), threading.Event())
    make_job(num_classes="3", _reset_head="True", **changes)
    run_here(Environment.read(root), threading.Event())
    second = last_weights(root)
    assert second["head.block.4.weight"].shape == (3, 128, 1, 1)
    for name in ("conv1.weight", "head.psp.conv2.0.weight", "head.block.0.weight", "auxlayer.block.0.weight"):
        assert np.allclose(second[name], first[name], atol=1e-6), name


def test_what_has_no_effect_is_said_once_and_random_weights_are_not_frozen(make_job: JobFactory) -> None:
    root = make_job(train=2, validation=1, backbone="resnet-18", _reset_head="True")
    add_channel(root, "pretrained", None)
    code, out, err = run(root)
    assert code == 0, out + err
    assert out.count("channel pretrained is not used: use_pretrained_model is False") == 1
    assert out.count("_reset_head has no effect without the model channel") == 1
    make_job(train=2, validation=1, backbone="resnet-18", _freeze_backbone="True")
    code, out, err = run(root)
    assert code == 1
    assert (
        (root / "output/failure").read_text().startswith("ClientError: _freeze_backbone cannot freeze random weights. ")
    )
