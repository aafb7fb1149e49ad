"""Whether a job may go on from a checkpoint: what has changed is named with its old and its new value."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from container.errors import ClientError
from container.hyperparameters import Hyperparameters, load, read_schema
from container.training.checkpoints.directory import Checkpoint, CheckpointDirectory
from container.training.checkpoints.progress import Progress
from container.training.checkpoints.resume import check_identity, find_checkpoint, resolve_seed
from tests.unit.training.checkpoints.test_directory import at, names, write

BASE = {"num_classes": 3, "num_training_samples": 8, "epochs": 10, "_seed": 5}
DATA = {
    "train": {"samples": 8, "names": "abc", "label_map": {"scale": 1}},
    "validation": {"samples": 2, "names": "def", "label_map": {"scale": 1}},
    "test": {"samples": 1, "names": "ghi", "label_map": {"scale": 1}},
}


def job(**changes: Any) -> Hyperparameters:
    return load({**BASE, **changes})


def checkpoint(earlier: Hyperparameters, data: Any = DATA) -> Checkpoint:
    identity = {"hyperparameters": earlier.as_dict(), "data": data, "devices": 1, "job": ""}
    return Checkpoint(Path("/opt/ml/checkpoints/3-0"), 1, Progress(1), identity, {}, [], None)


def test_every_hyperparameter_says_whether_a_resumed_job_may_change_it() -> None:
    rules = {name: entry.get("x-resume") for name, entry in read_schema()["properties"].items()}
    assert set(rules.values()) == {"fixed", "may-change", "up"}
    assert rules["epochs"] == "up"
    assert {rules[name] for name in ("learning_rate", "crop_size", "mini_batch_size", "optimizer")} == {"fixed"}
    assert {rules[name] for name in ("_workers", "_logging_frequency", "_resume")} == {"may-change"}


def test_the_same_job_goes_on_and_so_does_one_that_may_differ() -> None:
    for now in (job(), job(epochs=12), job(_workers=2, _logging_frequency=1, validation_mini_batch_size=1)):
        check_identity(checkpoint(job()), now, DATA)
    steps = {"lr_scheduler": "step", "lr_scheduler_step": "3,5"}
    check_identity(checkpoint(job(**steps)), job(**{**steps, "lr_scheduler_step": " 3, 5"}), DATA)


@pytest.mark.parametrize(
    ("earlier", "now", "told"),
    [
        ({}, {"learning_rate": 0.01}, "learning_rate was 0.001 and is 0.01"),
        ({"optimizer": "adam"}, {"optimizer": "sgd"}, "optimizer was adam and is sgd"),
        ({}, {"_seed": 6}, "_seed was 5 and is 6"),
        ({}, {"epochs": 9}, "epochs was 10 and is 9, but may only go up"),
        ({}, {"crop_size": 64, "_aux_loss": False}, "crop_size was 240 and is 64; _aux_loss was True and is False"),
        (
            {},
            {"lr_scheduler": "step", "lr_scheduler_step": "3"},
            "lr_scheduler was poly and is step; lr_scheduler_step was not set and is 3",
        ),
    ],
)
def test_a_change_is_named_with_its_remedies(earlier: dict[str, Any], now: dict[str, Any], told: str) -> None:
    with pytest.raises(ClientError) as caught:
        check_identity(checkpoint(job(**earlier)), job(**now), DATA)
    assert str(caught.value) == (
        f"this job is not the one whose checkpoint is /opt/ml/checkpoints/3-0: {told}. Undo the changes, set "
        "_resume=restart to train from scratch (it removes the checkpoints), or use another checkpoint_s3_uri."
    )


def test_a_hyperparameter_that_the_checkpoints_version_did_not_have_counts_as_its_default() -> None:
    old = checkpoint(job())
    known = {key: value for key, value in old.identity["hyperparameters"].items() if key != "_rmsprop_centered"}
    older = dataclasses.replace(old, identity={**old.identity, "hyperparameters": {**known, "_gone": 1}})
    check_identity(older, job(), DATA)
    with pytest.raises(ClientError, match="_rmsprop_centered was False and is True"):
        check_identity(older, job(_rmsprop_centered=True), DATA)


@pytest.mark.parametrize(
    ("channel", "change", "told"),
    [
        ("train", {"samples": 9}, "channel train held 8 samples and holds 9 samples"),
        ("validation", {"names": "xyz"}, "channel validation holds 2 samples as before, but of other names"),
        ("train", {"samples": None, "names": None}, "channel train held 8 samples and holds a stream"),
        ("train", {"label_map": {"scale": 2}}, r"the label map of channel train was \{'scale': 1\} and is"),
    ],
)
def test_other_data_is_noticed(channel: str, change: dict[str, Any], told: str) -> None:
    with pytest.raises(ClientError, match=told):
        check_identity(checkpoint(job()), job(), {**DATA, channel: {**DATA[channel], **change}})


def test_the_test_channel_may_change() -> None:
    check_identity(checkpoint(job()), job(), {name: DATA[name] for name in ("train", "validation")})


def test_a_seed_is_drawn_once_for_all_starts_of_a_job() -> None:
    unseeded = dataclasses.replace(job(), seed=None)
    drawn = resolve_seed(unseeded, None)
    assert drawn.seed is not None and 0 <= drawn.seed < 2**32
    assert resolve_seed(unseeded, None).seed != drawn.seed
    assert resolve_seed(unseeded, checkpoint(drawn)) == drawn
    assert resolve_seed(job(_seed=6), checkpoint(drawn)).seed == 6


def test_restart_takes_only_what_the_same_job_has_written_since(tmp_path: Path) -> None:
    write(CheckpointDirectory(tmp_path), at(2))  # by a job called "job"
    anew = job(_resume="restart")
    assert find_checkpoint(CheckpointDirectory(tmp_path), anew, "another") is None
    assert find_checkpoint(CheckpointDirectory(tmp_path), anew, "") is None
    found = find_checkpoint(CheckpointDirectory(tmp_path), anew, "job")
    assert found and found.folder == tmp_path / "2-0"
    assert names(tmp_path) == ["2-0"]  # removed only once the new training begins
    found = find_checkpoint(CheckpointDirectory(tmp_path), job(), "another")
    assert found and found.folder == tmp_path / "2-0"
