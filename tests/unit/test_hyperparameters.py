"""Hyperparameters: the conventions in which they arrive, and the faults that are named."""

from __future__ import annotations

import dataclasses
import json
import logging
from typing import Any

import pytest

from container.errors import ClientError
from container.hyperparameters import Hyperparameters, load, read_schema

REQUIRED = {"num_classes": "21", "num_training_samples": "1464"}

# name, value as a string, JSON inside a string, a JSON value, what they all mean
CONVENTIONS = [
    ("crop_size", "240", '"240"', 240, 240),
    ("learning_rate", "0.001", '"0.001"', 0.001, 0.001),
    ("learning_rate", "1e-3", "1E-3", 1e-3, 0.001),
    ("backbone", "resnet-101", '"resnet-101"', "resnet-101", "resnet-101"),
    ("use_pretrained_model", "False", '"false"', False, False),
    ("early_stopping", "True", "true", True, True),
    ("lr_scheduler_step", "10", '"10"', 10, "10"),
    ("lr_scheduler_step", "10, 20", '"10, 20"', "10, 20", "10, 20"),
    ("lr_scheduler_step", "[10, 20]", '"[10, 20]"', [10, 20], "10,20"),
    ("lr_scheduler_step", "[10,20,]", '"10,20,"', ["10", "20"], "10,20"),
    ("lr_scheduler_step", "10,20,", "(10,20)", [10, "20"], "10,20"),
    ("lr_scheduler_step", "10,", "[10]", [10], "10"),
    ("epochs", "3.0", "3", 3.0, 3),
    ("_audit", "fast", '"fast"', " fast ", "fast"),
    ("_quantize", "True", '"true"', True, True),
    ("_quantize", "0", '"False"', False, False),
    ("_quantize", "auto", '"Auto"', " auto ", "auto"),
    ("_exif_orientation", "apply", '"apply"', "apply", "apply"),
    ("_class_weights", " balanced", '"balanced"', "balanced", "balanced"),
    ("_augmentation", "strong", '"strong"', " strong ", "strong"),
    ("_augmentation", '{"colour": 0.2}', '"{\\"colour\\": 0.2}"', {"colour": 0.2}, {"colour": 0.2}),
]


@pytest.mark.parametrize(("name", "plain", "encoded", "real", "meaning"), CONVENTIONS)
def test_three_conventions_mean_the_same(name: str, plain: str, encoded: str, real: Any, meaning: Any) -> None:
    for value in (plain, encoded, real):
        loaded = getattr(load({**REQUIRED, name: value}), name.lstrip("_"))
        assert str(loaded).replace(" ", "") == str(meaning).replace(" ", "")
        assert type(loaded) is type(meaning)


@pytest.mark.parametrize(
    "given",
    [
        ["sky", "road"],
        '["sky", "road"]',
        '"[\\"sky\\", \\"road\\"]"',
        {"0": "sky", "1": "road"},
        '{"0": "sky", "01": "road"}',
    ],
)
def test_class_names_come_as_a_list_or_by_id(given: Any) -> None:
    assert load({**REQUIRED, "_class_names": given}).named_classes == {0: "sky", 1: "road"}


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ('{"21": "x", "3": "y", "300": "z"}', r"class IDs that num_classes=21 excludes: 21 \(x\), 300 \(z\)$"),
        ("sky, road", "_class_names must be a JSON list of names, or an object with IDs and names, not 'sky, road'"),
        ("[1]", "_class_names must be a JSON list of names, or an object with IDs and names, not 1"),
        ('[""]', "_class_names must be a JSON list of names, or an object with IDs and names, not ''"),
        ('{"sky": "0"}', "_class_names must be a JSON list of names, or an object with IDs and names, not 'sky'"),
    ],
)
def test_invalid_class_names_are_rejected(given: str, reason: str) -> None:
    with pytest.raises(ClientError, match=reason):
        load({**REQUIRED, "_class_names": given})


def test_defaults_are_the_built_ins() -> None:
    job = load(REQUIRED)
    assert (job.algorithm, job.backbone, job.crop_size, job.base_size) == ("fcn", "resnet-50", 240, 520)
    assert (job.epochs, job.mini_batch_size, job.optimizer, job.learning_rate) == (10, 16, "sgd", 0.001)
    assert (job.lr_scheduler, job.momentum, job.weight_decay) == ("poly", 0.9, 0.0001)
    assert (job.gamma1, job.gamma2, job.use_pretrained_model, job.syncbn) == (0.9, 0.9, True, False)
    assert (job.early_stopping, job.early_stopping_min_epochs, job.early_stopping_patience) == (False, 5, 4)
    assert (job.aux_loss, job.aux_weight, job.hybrid, job.workers, job.kvstore) == (True, 0.5, False, 16, "device")
    assert (job.class_weights, job.loss, job.rare_crops, job.augmentation) == (None, "ce", 0, "default")
    assert (job.warmup_iterations, job.ema, job.accumulate, job.clip_norm) == (0, 0, 1, None)
    assert (job.on_divergence, job.validation, job.validation_interval) == ("stop", "crop", 1)


WEIGHTS = "_class_weights must be balanced, enet, or a JSON list of num_classes numbers from 0 to 1000000"
NOT_WEIGHTS = "_class_weights must be numbers, not NaN, and at least one must be greater than 0"
STRENGTHS = (
    "_augmentation must be default, strong, or a JSON object of colour, rotation, vertical_flip, scale and dropout"
)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("num_classes", "1", "num_classes must be 2 ≤ integer ≤ 254, not 1"),
        ("num_classes", "255", "num_classes must be 2 ≤ integer ≤ 254, not 255"),
        ("crop_size", "16", "crop_size must be 16 < integer, not 16"),
        ("crop_size", "24.5", "crop_size must be 16 < integer, not 24.5"),
        ("learning_rate", "0", "learning_rate must be 0 < number ≤ 1, not 0.0"),
        ("learning_rate", "NaN", "learning_rate must be 0 < number ≤ 1, not 'NaN'"),
        ("learning_rate", float("nan"), "learning_rate must be 0 < number ≤ 1, not 'nan'"),
        ("learning_rate", "fast", "learning_rate must be 0 < number ≤ 1, not 'fast'"),
        ("weight_decay", "1", "weight_decay must be 0 < number < 1, not 1.0"),
        ("algorithm", "unet", "algorithm must be fcn, psp, deeplab or fastscnn, not 'unet'"),
        ("syncbn", "maybe", "syncbn must be boolean, not 'maybe'"),
        ("_quantize", "maybe", "_quantize must be auto, True or False, not 'maybe'"),
        ("_quantize", "2", "_quantize must be auto, True or False, not '2'"),
        ("lr_scheduler_step", "ten", "lr_scheduler_step must be comma-separated integers, not 'ten'"),
        ("lr_scheduler_step", "10,,20", "lr_scheduler_step must be comma-separated integers, not '10,,20'"),
        ("lr_scheduler_step", "10,20,,", "lr_scheduler_step must be comma-separated integers, not '10,20,'"),
        ("lr_scheduler_step", "[10", "lr_scheduler_step must be comma-separated integers, not '[10'"),
        ("lr_scheduler_step", [10.5], "lr_scheduler_step must be comma-separated integers, not '10.5'"),
        ("lr_scheduler_step", [True], "lr_scheduler_step must be comma-separated integers, not 'True'"),
        ("lr_scheduler_step", [None], "lr_scheduler_step must be comma-separated integers, not 'None'"),
        ("lr_scheduler_step", {"10": 20}, "lr_scheduler_step must be comma-separated integers, not {'10': 20}"),
        ("lr_scheduler_step", None, "lr_scheduler_step must be comma-separated integers, not None"),
        ("num_training_samples", "0", "num_training_samples must be 1 ≤ integer, not 0"),
        ("num_classes", None, "num_classes must be 2 ≤ integer ≤ 254, not None"),
        ("num_classes", [21], "num_classes must be 2 ≤ integer ≤ 254, not [21]"),
        ("num_classes", "1e400", "num_classes must be 2 ≤ integer ≤ 254, not '1e400'"),
        ("epochs", "1e20", "epochs must be 1 ≤ integer, not '1e20'"),
        ("epochs", 10**400, f"epochs must be 1 ≤ integer, not '{10**400}'"),
        ("learning_rate", 10**400, f"learning_rate must be 0 < number ≤ 1, not '{10**400}'"),
        ("lr_scheduler_step", "1234567890", "lr_scheduler_step must be comma-separated integers, not '1234567890'"),
        ("epochs", True, "epochs must be 1 ≤ integer, not True"),
        ("_audit", "none", "_audit must be full, fast or off, not 'none'"),
        ("_exif_orientation", "rotate", "_exif_orientation must be auto, apply or ignore, not 'rotate'"),
        ("_class_weights", "[1, 2]", "_class_weights has 2 numbers, but num_classes is 21. Set one number per class"),
        ("_class_weights", [0] * 21, NOT_WEIGHTS),
        ("_class_weights", f"[{'NaN, ' * 20}1]", NOT_WEIGHTS),
        ("_class_weights", "heavy", f"{WEIGHTS}, not 'heavy'"),
        ("_class_weights", [*[1] * 20, -1], f"{WEIGHTS}, not {[*[1] * 20, -1]}"),
        ("_class_weights", [*[1] * 20, 10**400], f"{WEIGHTS}, not {[*[1] * 20, 10**400]}"),
        ("_class_weights", [*[1] * 20, "2"], f"{WEIGHTS}, not {[*[1] * 20, '2']}"),
        ("_augmentation", "weak", f"{STRENGTHS}, not 'weak'"),
        ("_augmentation", '{"color": 1}', "color of _augmentation is unknown (did you mean colour?)"),
        ("_augmentation", {"rotation": 181}, "rotation of _augmentation must be 0 ≤ number ≤ 180, not 181"),
        ("_augmentation", '{"scale": [1]}', "scale of _augmentation must be [smallest, largest], not [1]"),
        ("_augmentation", {"scale": [1, 11]}, "scale of _augmentation must be 0.1 ≤ number ≤ 10, not 11"),
        ("_augmentation", '{"scale": [2, 1]}', "scale of _augmentation must be [smallest, largest], not [2, 1]"),
        ("_augmentation", '{"colour": NaN}', "the values in _augmentation must be numbers, not NaN"),
        ("_augmentation", '{"scale": [NaN, 1]}', "the values in _augmentation must be numbers, not NaN"),
        ("_ema", "1", "_ema must be 0 ≤ number < 1, not 1.0"),
        ("_loss", "dice", "_loss must be ce, ce+dice, ce+lovasz, focal or ohem, not 'dice'"),
        ("num_clases", "2", "num_clases is unknown (did you mean num_classes?)"),
        ("zzz", "2", "zzz is unknown"),
    ],
)
def test_each_error_has_a_fix(name: str, value: Any, reason: str) -> None:
    with pytest.raises(ClientError) as caught:
        load({**REQUIRED, name: value})
    assert str(caught.value) == f"1 hyperparameter is not valid: {reason}"


def test_all_faults_come_in_one_message() -> None:
    with pytest.raises(ClientError) as caught:
        load({"num_classes": "1", "lr_scheduler": "step", "optimiser": "adam"}, streamed=True)
    assert str(caught.value) == (
        "4 hyperparameters are not valid: lr_scheduler_step is required with lr_scheduler=step; "
        "num_classes must be 2 ≤ integer ≤ 254, not 1; num_training_samples is required in Pipe mode; "
        "optimiser is unknown (did you mean optimizer?)"
    )


def test_platform_keys_are_dropped() -> None:
    job = load({**REQUIRED, "sagemaker_region": "us-east-1", "_tuning_objective_metric": "validation:mIOU"})
    assert job == load(REQUIRED)


@pytest.mark.parametrize(("crop_size", "crop"), [(17, 24), (240, 240), (241, 248)])
def test_crop_is_rounded_up_to_a_multiple_of_eight(crop_size: int, crop: int) -> None:
    assert load({**REQUIRED, "crop_size": crop_size}).crop == crop


def test_fields_and_schema_name_the_same_properties() -> None:
    fields = [field.name for field in dataclasses.fields(Hyperparameters)]
    properties = read_schema()["properties"].items()
    assert fields == [name.lstrip("_") for name, entry in properties if not entry.get("x-no-effect")]


def test_written_hyperparameters_load_again() -> None:
    job = load({**REQUIRED, "lr_scheduler": "step", "lr_scheduler_step": "3,5", "_seed": 1})
    written = json.loads(json.dumps(job.as_dict()))
    assert load(written) == job
    assert written["_aux_weight"] == 0.5


@pytest.mark.parametrize("value", ["", " ", "[]", [], '""', ","])
def test_empty_list_of_steps_is_not_set(value: Any) -> None:
    assert load({**REQUIRED, "lr_scheduler_step": value}) == load(REQUIRED)
    with pytest.raises(ClientError, match=r": lr_scheduler_step is required with lr_scheduler=step$"):
        load({**REQUIRED, "lr_scheduler": "step", "lr_scheduler_step": value})


def test_files_can_be_counted_but_a_stream_cannot() -> None:
    assert load({"num_classes": 2}).num_training_samples == 0
    with pytest.raises(ClientError, match=r"^1 hyperparameter is not valid: num_training_samples is required in Pipe"):
        load({"num_classes": 2}, streamed=True)


def test_backbone_has_no_effect_if_the_algorithm_has_none(caplog: pytest.LogCaptureFixture) -> None:
    job = load({**REQUIRED, "algorithm": "fastscnn"})
    assert job.backbone is None and "backbone" not in job.as_dict() and not caplog.messages
    assert load({**REQUIRED, "algorithm": "fastscnn", "backbone": "resnet-101"}) == job
    assert caplog.messages == ["backbone has no effect: fastscnn has no backbone"]
    with pytest.raises(ClientError, match="backbone must be resnet-18"):
        load({**REQUIRED, "algorithm": "fastscnn", "backbone": "vgg"})


def test_option_without_an_effect_is_accepted_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        # the built-in's defaults, as published logs show them
        job = load({**REQUIRED, "_num_kv_servers": "auto", "_augmentation_type": "default"})
    assert job == load(REQUIRED)
    assert caplog.messages == [
        "_num_kv_servers, _augmentation_type: accepted for compatibility with the built-in algorithm, without effect"
    ]
    assert load({**REQUIRED, "_num_kv_servers": 2}) == load(REQUIRED)
    assert not {"_num_kv_servers", "_augmentation_type"} & job.as_dict().keys()


def test_the_audits_default_is_left_to_the_input_mode() -> None:
    assert (load(REQUIRED).audit, load(REQUIRED).exif_orientation) == (None, "auto")


STEPPED = "optimizer=sgd, adam, rmsprop, nag, adagrad or adamw"


@pytest.mark.parametrize(
    ("settings", "needed", "there"),
    [
        ({"_focal_gamma": 1}, "_loss=focal", "_loss is ce"),
        ({"_ohem_share": 1}, "_loss=ohem", "_loss is ce"),
        ({"momentum": 0.5, "optimizer": "adam"}, "optimizer=sgd or nag", "optimizer is adam"),
        ({"weight_decay": 0.1, "optimizer": "nag"}, "optimizer=sgd or adamw", "optimizer is nag"),
        ({"weight_decay": 0.1, "optimizer": "rmsprop"}, "_rmsprop_centered=True", "_rmsprop_centered is False"),
        ({"gamma1": 0.5}, "optimizer=rmsprop", "optimizer is sgd"),
        ({"lr_scheduler_step": "3"}, "lr_scheduler=step", "lr_scheduler is poly"),
        ({"early_stopping_patience": 2}, "early_stopping=True", "early_stopping is False"),
        ({"_on_divergence": "retry", "optimizer": "adadelta"}, STEPPED, "optimizer is adadelta"),
        ({"_quantize_tolerance": 0.5, "_quantize": "False"}, "_quantize=auto or True", "_quantize is False"),
    ],
)
def test_a_setting_that_another_makes_idle_is_said_to_have_no_effect(
    caplog: pytest.LogCaptureFixture, settings: dict[str, Any], needed: str, there: str
) -> None:
    load({**REQUIRED, **settings})
    assert caplog.messages == [f"{next(iter(settings))} has no effect: it belongs to {needed}, and {there}"]


@pytest.mark.parametrize(
    "settings",
    [
        {"_loss": "focal", "_focal_gamma": 1},
        {"optimizer": "adam", "momentum": 0.9},  # the default
        {"optimizer": "nag", "momentum": 0.5},
        {"_quantize": True, "_quantize_tolerance": 0.5},
    ],
)
def test_a_setting_that_acts_or_changes_nothing_is_not_told(
    caplog: pytest.LogCaptureFixture, settings: dict[str, Any]
) -> None:
    load({**REQUIRED, **settings})
    assert not caplog.messages
