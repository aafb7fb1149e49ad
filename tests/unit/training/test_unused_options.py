"""Every option that has no effect in a job is logged: each property of the schema is listed here, with a job."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from container.environment import Channel, Environment
from container.hyperparameters import as_request, load
from container.schema import read_schema
from container.training.schedule import explain_schedule
from container.training.unused_options import explain_idle

REQUIRED = {"num_classes": 2, "num_training_samples": 4}

# By option: a job in which it has no effect, and what the log says. The value of the option is not its default.
IDLE: dict[str, tuple[dict[str, Any], str]] = {
    "backbone": ({"algorithm": "fastscnn", "backbone": "resnet-18"}, "backbone has no effect: fastscnn"),
    "validation_mini_batch_size": (
        {"validation_mini_batch_size": 4, "_validation": "full"},
        "validation_mini_batch_size has no effect: it belongs to _validation=crop",
    ),
    "lr_scheduler_factor": ({"lr_scheduler_factor": 0.5}, "lr_scheduler_factor has no effect: it belongs to"),
    "lr_scheduler_step": (
        {"lr_scheduler": "step", "lr_scheduler_step": "5,10,20"},
        "lr_scheduler_step=5,10,20: 10, 20 have no effect with epochs=10, whose last epoch is 9. Decrease them, or in",
    ),
    "momentum": ({"optimizer": "adam", "momentum": 0.5}, "momentum has no effect: it belongs to optimizer=sgd or nag"),
    "weight_decay": ({"optimizer": "adam", "weight_decay": 0.1}, "weight_decay has no effect: it belongs to"),
    "gamma1": ({"gamma1": 0.5}, "gamma1 has no effect: it belongs to optimizer=rmsprop"),
    "gamma2": ({"gamma2": 0.5}, "gamma2 has no effect: it belongs to optimizer=rmsprop"),
    "early_stopping": ({"early_stopping": True, "epochs": 2}, "early_stopping has no effect: the last score before"),
    "early_stopping_min_epochs": ({"early_stopping_min_epochs": 1}, "early_stopping_min_epochs has no effect: it"),
    "early_stopping_patience": ({"early_stopping_patience": 1}, "early_stopping_patience has no effect: it belongs to"),
    "early_stopping_tolerance": ({"early_stopping_tolerance": 0.1}, "early_stopping_tolerance has no effect: it"),
    "_aux_weight": (
        {"_aux_weight": 0.1, "_aux_loss": False},
        "_aux_weight has no effect: it belongs to _aux_loss=True",
    ),
    "_shuffle_buffer": ({"_shuffle_buffer": 9}, "_shuffle_buffer=9 has no effect: it is for Pipe mode"),
    "_shuffle_buffer_mb": ({"_shuffle_buffer_mb": 9}, "_shuffle_buffer_mb=9 has no effect: it is for Pipe mode"),
    "_quantize": (
        {"_quantize": True, "_report_minutes": 0},
        "_quantize=True has no effect: _report_minutes=0 disables",
    ),
    "_quantize_tolerance": ({"_quantize_tolerance": 0.1, "_quantize": False}, "_quantize_tolerance has no effect: it"),
    "_gradient_scale": ({"_gradient_scale": "mean", "optimizer": "adam"}, "_gradient_scale has no effect: it belongs"),
    "_rmsprop_centered": ({"_rmsprop_centered": True}, "_rmsprop_centered has no effect: it belongs to optimizer=rmsp"),
    "_ps_port": ({"_ps_port": 9000}, "_ps_port=9000 has no effect: the job has one host"),
    "_network_interface": ({"_network_interface": "eth9"}, "_network_interface=eth9 has no effect: the job has one"),
    "_checkpoint_minutes": ({"_checkpoint_minutes": 1}, "_checkpoint_minutes=1.0 has no effect: there is no directory"),
    "_resume": ({"_resume": "restart"}, "_resume=restart has no effect: there is no directory"),
    "_window": ({"_window": 512}, "_window has no effect: fcn processes large images in tiles"),
    "_overlap": ({"_overlap": 0.5, "_window": 512}, "_overlap has no effect without _window"),
    "_focal_gamma": ({"_focal_gamma": 1}, "_focal_gamma has no effect: it belongs to _loss=focal"),
    "_ohem_share": ({"_ohem_share": 0.5}, "_ohem_share has no effect: it belongs to _loss=ohem"),
    "_warmup_iterations": ({"_warmup_iterations": 5, "optimizer": "adadelta"}, "_warmup_iterations has no effect: it"),
    "_accumulate": ({"_accumulate": 9}, "_accumulate=9 is more than the 4 iterations of an epoch"),
    "_on_divergence": (
        {"_on_divergence": "retry", "optimizer": "adadelta"},
        "_on_divergence has no effect: it belongs",
    ),
    "_num_kv_servers": ({"_num_kv_servers": "2"}, "_num_kv_servers: accepted for compatibility with the built"),
    "_augmentation_type": ({"_augmentation_type": "x"}, "_augmentation_type: accepted for compatibility with the"),
}
ELSEWHERE = {  # where the devices, the weights or the stream decide, and which test looks at it
    "learning_rate": "explain_optimizer: adadelta has no learning rate",
    "lr_scheduler": "explain_optimizer: adadelta has no learning rate",
    "_kvstore": "explain_optimizer: one device",
    "syncbn": "tests/mx/test_start.py",
    "use_pretrained_model": "tests/unit/test_initial_weights.py",
    "_reset_head": "tests/job/test_starting_weights.py",
    "_freeze_backbone": "tests/unit/test_initial_weights.py",
    "_freeze_batchnorm": "tests/unit/test_initial_weights.py",
    "precision_dtype": "tests/mx/test_devices.py",
    "_class_weights": "tests/job/test_pipe.py",
    "num_training_samples": "the audit compares it with the channel",
    "_image_range": "tests/unit/test_image_range.py",
    "_audit": "test_an_audit_of_streams_alone_has_no_effect",
}
ALWAYS = {
    *("num_classes", "algorithm", "base_size", "crop_size", "epochs", "mini_batch_size", "optimizer", "_aux_loss"),
    *("_hybrid", "_workers", "_logging_frequency", "_max_bad_records", "_report_minutes", "_seed", "_exif_orientation"),
    *("_class_names", "_tensorboard", "_loss", "_rare_crops", "_ema", "_clip_norm", "_augmentation", "_validation"),
    "_validation_interval",
}


def logged(settings: dict[str, Any], root: Path, mode: str = "File", hosts: tuple[str, ...] = ("algo-1",)) -> None:
    job = load({**REQUIRED, **settings})
    channels = {name: Channel(name, root / name, mode) for name in ("train", "validation")}
    explain_idle(Environment(root, {}, channels, "algo-1", hosts), job)
    explain_schedule(job, 4)


def test_every_option_is_considered() -> None:
    listed = [*IDLE, *ELSEWHERE, *ALWAYS]
    assert sorted(listed) == sorted(read_schema()["properties"])


@pytest.mark.parametrize("name", list(IDLE))
def test_an_option_without_an_effect_is_logged_once(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings, message = IDLE[name]
    with caplog.at_level(logging.INFO):
        logged(settings, tmp_path)
    assert [text[: len(message)] for text in caplog.messages].count(message) == 1, caplog.messages


def test_the_same_options_are_not_logged_where_they_act(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "checkpoints").mkdir()
    settings = {"_shuffle_buffer": 9, "_shuffle_buffer_mb": 9, "_ps_port": 9000, "_network_interface": "eth9"}
    settings |= {"_checkpoint_minutes": 1, "_resume": "restart", "lr_scheduler": "step", "lr_scheduler_step": "9"}
    logged(settings, tmp_path, "Pipe", ("algo-1", "algo-2"))
    logged({"_shuffle_buffer": 0, "validation_mini_batch_size": 4}, tmp_path)  # 0 keeps the order of files, too
    assert caplog.messages == []


def test_an_audit_of_streams_alone_has_no_effect(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    logged({"_audit": "full"}, tmp_path, "Pipe")
    assert caplog.messages == [
        "_audit=full has no effect: a stream is not read before training; its audit is the first pass"
    ]


def test_a_factor_of_steps_that_are_never_reached_has_no_effect(caplog: pytest.LogCaptureFixture) -> None:
    load({**REQUIRED, "lr_scheduler": "step", "lr_scheduler_step": "10", "lr_scheduler_factor": 0.5})
    assert caplog.messages == [
        "lr_scheduler_step=10: 10 has no effect with epochs=10, whose last epoch is 9. Decrease it, or increase epochs",
        "lr_scheduler_factor has no effect: no epoch of lr_scheduler_step is reached",
    ]


def test_int8_without_an_evaluation_has_no_effect(caplog: pytest.LogCaptureFixture) -> None:
    load({**REQUIRED, "_quantize": True, "_report_minutes": 0, "_quantize_tolerance": 0.1})
    assert [message.split(" has no effect")[0] for message in caplog.messages] == [
        "_quantize=True",
        "_quantize_tolerance",
    ]


@pytest.mark.parametrize("algorithm", ["fcn", "psp", "deeplab", "fastscnn"])
@pytest.mark.parametrize("scheduler", ["poly", "step"])
def test_no_warning_about_the_logged_final_configuration(
    caplog: pytest.LogCaptureFixture, algorithm: str, scheduler: str
) -> None:
    steps = {"lr_scheduler_step": "5"} if scheduler == "step" else {}
    job = load({**REQUIRED, "algorithm": algorithm, "lr_scheduler": scheduler, **steps})
    caplog.clear()
    pasted = load(json.loads(as_request(job.as_dict())))
    assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == []
    assert pasted == job
