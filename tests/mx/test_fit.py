"""A job's training from start to end, on a tiny network: stopped, crashed and damaged anywhere, it goes on unharmed."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import math
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np
import pytest
from PIL import Image

from container.artifact import model_directory
from container.data.pipe import PipeSample
from container.environment import Environment
from container.errors import ClientError, PlatformError
from container.mx.trainer import Trainer
from container.training import inputs
from container.training import run as story
from container.training.checkpoints.directory import CheckpointDirectory
from container.training.shutdown import Shutdown
from tests.conftest import SmallDisk, job_factory
from tests.mx.tiny import TinyNetwork

SETTINGS = {
    "num_classes": "3",
    "epochs": "2",
    "optimizer": "nag",  # adam would make much of what the order of threads does to tiny gradients
    "learning_rate": "0.1",
    "_checkpoint_minutes": "1e-9",
}
STEPS = 5  # 5 samples in batches of 2, twice: 2 steps and then, with the one left over, 3


class Crash(BaseException):
    """What kill -9 is to a test in one process."""


@dataclasses.dataclass
class Outcome:
    """What a start of a job has done."""

    epochs: list[dict[str, Any]] | None  # None when it was not finished
    rates: list[float]  # of the steps that it made
    first_pixels: list[int]  # of each step's batch
    losses: list[float]
    seeds: list[tuple[int, ...]]
    stop: threading.Event
    finish_seconds: tuple[float, float] = (0.0, 0.0)  # of an epoch and of the job, as the last part was told
    notices: list[tuple[int, float]] = dataclasses.field(default_factory=list)  # TensorBoard's steps and rates


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Outcome]:
    """Return a function that starts the job below a directory; `each` is called before every step."""

    def start_tiny_network(environment: Environment, job: Any, devices: list[mx.Context]) -> TinyNetwork:
        mx.random.seed(job.seed)
        np.random.seed(job.seed)
        network = TinyNetwork()
        network.initialize(mx.init.Xavier(), ctx=devices)
        network.hybridize()
        return network

    class NoFinish:
        def __init__(self, *arguments: Any) -> None:
            pass

        def run(self, history: list[dict[str, Any]], epoch_seconds: float, job_seconds: float) -> None:
            outcome.epochs, outcome.finish_seconds = history, (epoch_seconds, job_seconds)

    step, seed = Trainer.step, Trainer.seed

    def observed_step(trainer: Trainer, batch: Any, rate: float) -> Any:
        outcome.rates.append(rate)
        outcome.first_pixels.append(int(batch.images[:, 0, 0].astype(int).sum()))
        before(len(outcome.rates), outcome)
        losses = step(trainer, batch, rate)
        outcome.losses.append(float(losses[0].asscalar()))
        return losses

    def observed_seed(trainer: Trainer, *place: int) -> None:
        outcome.seeds.append(place)
        seed(trainer, *place)

    outcome, before = Outcome(None, [], [], [], [], threading.Event()), lambda number, outcome: None
    monkeypatch.setattr("container.mx.weights.initial_network.create_initial_network", start_tiny_network)

    class NoReporter:
        """The report has a thread of its own, whose writes are none of those that are counted here."""

        def __init__(self, *arguments: Any) -> None:
            self.seconds: dict[str, float] = {}

        def iteration(self, step: int, figures: dict[str, float]) -> None:
            outcome.notices.append((step, figures["learning_rate"]))

        def __getattr__(self, name: str) -> Callable[..., None]:
            return lambda *arguments: None

    monkeypatch.setattr("container.training.scoring.final_steps.FinalSteps", NoFinish)
    monkeypatch.setattr("container.training.report.reporter.Reporter", NoReporter)
    monkeypatch.setattr(Trainer, "step", observed_step)
    monkeypatch.setattr(Trainer, "seed", observed_seed)

    def begin(
        root: Path,
        each: Callable[[int, Outcome], None] = lambda number, outcome: None,
        shutdown: Shutdown | None = None,
    ) -> Outcome:
        nonlocal outcome, before
        outcome, before = Outcome(None, [], [], [], [], threading.Event()), each
        story.run(Environment.read(root), outcome.stop, shutdown=shutdown)
        return outcome

    return begin


def lay_out(root: Path, **changes: Any) -> Path:
    (root / "checkpoints").mkdir(parents=True, exist_ok=True)
    return job_factory(root)(train=changes.pop("train", 5), validation=2, **{**SETTINGS, **changes})


def stop_at(step: int) -> Callable[[int, Outcome], None]:
    return lambda number, outcome: outcome.stop.set() if number == step else None


def crash_at(step: int) -> Callable[[int, Outcome], None]:
    def each(number: int, outcome: Outcome) -> None:
        if number == step:
            raise Crash

    return each


def weights(root: Path, name: str) -> dict[str, np.ndarray]:
    return {key: array.asnumpy() for key, array in mx.nd.load(str(root / "model" / name)).items()}


def assert_same(root: Path, outcome: Outcome, undisturbed: Path, expected: Outcome) -> None:
    """Both jobs have the same figures, and models that differ by no more than the order of threads makes them."""
    assert outcome.epochs and expected.epochs
    for ours, theirs in zip(outcome.epochs, expected.epochs, strict=True):
        learnt = [name for name in theirs if not name.endswith(("_seconds", "_throughput"))]
        assert {name: ours[name] for name in learnt} == pytest.approx({name: theirs[name] for name in learnt}, rel=1e-4)
    for name in ("model_best.params", "model_algo-1"):
        ours, theirs = weights(root, name), weights(undisturbed, name)
        for key in theirs:
            np.testing.assert_allclose(ours[key], theirs[key], rtol=1e-3, atol=1e-5, err_msg=f"{name}: {key}")


@pytest.fixture
def undisturbed(tmp_path: Path, start: Callable[..., Outcome]) -> tuple[Path, Outcome]:
    root = lay_out(tmp_path / "undisturbed")
    return root, start(root)


def forget_machine(root: Path) -> None:
    shutil.rmtree(root / "model", ignore_errors=True)


@pytest.mark.parametrize("how", [stop_at, crash_at])
@pytest.mark.parametrize("step", range(1, STEPS + 1))
def test_after_any_step_a_job_goes_on(
    tmp_path: Path, start: Callable[..., Outcome], undisturbed: tuple[Path, Outcome], step: int, how: Any
) -> None:
    root = lay_out(tmp_path / "job")
    with contextlib.suppress(Crash):
        interrupted = start(root, how(step))
        assert len(interrupted.rates) == step
        assert {"model_best.params", "model_algo-1"} <= {path.name for path in (root / "model").iterdir()}
    forget_machine(root)
    resumed = start(root)
    assert_same(root, resumed, *undisturbed)
    done = step if how is stop_at else step - 1
    assert resumed.rates == undisturbed[1].rates[done:]
    assert resumed.first_pixels == undisturbed[1].first_pixels[done:]
    assert not list(root.rglob(".*.params*"))


RECIPE = {
    "_ema": "0.5",
    "_accumulate": "2",  # the second epoch's third step is an update of its own
    "_warmup_iterations": "4",
    "_class_weights": "balanced",
    "_loss": "ce+dice",
    "_rare_crops": "0.5",
    "_augmentation": "strong",
    "_clip_norm": "1",
    "_validation": "full",
    "_validation_interval": "2",
}


@pytest.mark.parametrize("how", [stop_at, crash_at])
@pytest.mark.parametrize("step", range(1, STEPS + 1))
def test_after_any_step_a_job_with_every_switch_goes_on(
    tmp_path: Path, start: Callable[..., Outcome], step: int, how: Any
) -> None:
    undisturbed, root = (lay_out(tmp_path / name, **RECIPE) for name in ("undisturbed", "job"))
    expected = start(undisturbed)
    assert expected.epochs and ["mIOU" in entry for entry in expected.epochs] == [False, True]
    poly = [(1 - at) ** 0.9 for at in (0, 0.25, 0.5, 0.75, 0.75)]  # 2 steps in each epoch were planned
    warm = (0.25, 0.5, 0.75, 1, 1)
    assert expected.rates == pytest.approx([0.1 * up * down for up, down in zip(warm, poly, strict=True)])
    with contextlib.suppress(Crash):
        start(root, how(step))
    forget_machine(root)
    resumed = start(root)
    assert_same(root, resumed, undisturbed, expected)
    done = step if how is stop_at else step - 1
    assert resumed.rates == expected.rates[done:]
    assert resumed.first_pixels == expected.first_pixels[done:]


def test_averages_are_what_is_kept(tmp_path: Path, start: Callable[..., Outcome], networks: list[TinyNetwork]) -> None:
    root = lay_out(tmp_path / "job", _ema="0.9")
    start(root)
    last = weights(root, "model_algo-1")
    own = networks[-1]._collect_params_with_prefix()
    assert np.abs(last["stage4.weight"] - own["stage4.weight"].data().asnumpy()).max() > 1e-4
    (newest,) = (root / "checkpoints").glob("2-0")
    kept = mx.nd.load(str(newest / "weights.params"))
    assert all(np.array_equal(kept[name].asnumpy(), last[name]) for name in last)


def test_classes_are_weighed_from_the_first_step_whatever_the_audit(
    tmp_path: Path, start: Callable[..., Outcome], caplog: pytest.LogCaptureFixture
) -> None:
    """Class 2 does not occur: it weighs as much as the rarer of the two that do."""
    told = {}
    for audit in ("full", "off"):
        caplog.clear()
        root = lay_out(tmp_path / audit, _class_weights="enet", _audit=audit)
        with caplog.at_level(logging.INFO):
            start(root)
        told[audit] = [
            (record.levelname, record.getMessage())
            for record in caplog.records
            if record.getMessage().startswith("_class_weights")
        ]
    labels = [np.asarray(Image.open(path)) for path in (root / "input/data/train_annotation").iterdir()]
    counts = [sum(int((each == label).sum()) for each in labels) for label in (0, 1)]
    first, second = (1 / math.log(1.02 + count / sum(counts)) for count in counts)
    expected = ("INFO", f"_class_weights=enet: 0: {first:.4g}, 1: {second:.4g}, 2: {second:.4g}")
    assert told == {"full": [expected], "off": [expected]}


@pytest.mark.parametrize("number", [1, 2, 3, 4, 7, 9, 12, 15, 18, 22, 24])
def test_after_a_crash_in_any_write_a_job_goes_on(
    tmp_path: Path,
    start: Callable[..., Outcome],
    undisturbed: tuple[Path, Outcome],
    monkeypatch: pytest.MonkeyPatch,
    number: int,
) -> None:
    root, writes, replacing = lay_out(tmp_path / "job"), 0, model_directory.replacing

    @contextlib.contextmanager
    def crashing(path: Path, *arguments: Any) -> Iterator[Path]:
        nonlocal writes
        writes += 1
        if writes == number:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.with_name(f".{path.name}.1").write_bytes(b"half")
            raise Crash
        with replacing(path, *arguments) as temporary:
            yield temporary

    with monkeypatch.context() as patch:
        patch.setattr(model_directory, "replacing", crashing)
        with pytest.raises(Crash):
            start(root)
    assert list(root.rglob(".*.1"))
    resumed = start(root)
    assert_same(root, resumed, *undisturbed)
    assert not list(root.rglob(".*.1"))


def test_an_epochs_loss_is_the_mean_of_its_steps_whose_randomness_is_their_own(
    undisturbed: tuple[Path, Outcome],
) -> None:
    _, outcome = undisturbed
    assert outcome.epochs and len(outcome.losses) == STEPS
    for entry, losses in zip(outcome.epochs, (outcome.losses[:2], outcome.losses[2:]), strict=True):
        assert entry["train_loss"] == pytest.approx(np.mean(losses), rel=1e-9)
    assert outcome.seeds == [(7, 0, 0), (7, 0, 1), (7, 1, 0), (7, 1, 1), (7, 1, 2)]


def damages(folder: Path) -> Iterator[tuple[str, Callable[[Path], Any]]]:
    for path in sorted(folder.iterdir()):
        yield path.name, lambda each: each.unlink()
        yield path.name, lambda each: each.write_bytes(each.read_bytes()[: each.stat().st_size // 2])
        yield path.name, lambda each: each.write_bytes(each.read_bytes()[:-2])


def test_a_cut_or_missing_file_costs_one_checkpoint_and_two_cost_the_training(
    tmp_path: Path, start: Callable[..., Outcome], undisturbed: tuple[Path, Outcome], caplog: pytest.LogCaptureFixture
) -> None:
    stopped = lay_out(tmp_path / "stopped")
    start(stopped, stop_at(4))
    newest, before = stopped / "checkpoints/1-2", stopped / "checkpoints/1-1"
    assert newest.is_dir() and before.is_dir()
    tried = 0
    for name, damage in damages(newest):
        root = tmp_path / "job"
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(stopped, root)
        damage(root / "checkpoints/1-2" / name)
        caplog.clear()
        with caplog.at_level(logging.INFO):
            resumed = start(root)
        assert f"The checkpoint {root}/checkpoints/1-2 is skipped: " in caplog.text and name in caplog.text
        assert f"resuming from {root}/checkpoints/1-1: 1 epochs are done, and 1 iterations of the next" in caplog.text
        assert_same(root, resumed, *undisturbed)
        tried += 1
    assert tried == 3 * 4
    for each in (newest, before):
        (each / "weights.params").unlink()
    with caplog.at_level(logging.INFO):
        assert_same(stopped, start(stopped), *undisturbed)
    assert f"{stopped}/checkpoints contains no valid checkpoint: the job trains from the beginning" in caplog.text


def test_a_job_stopped_while_it_validates_need_not_train_that_epoch_again(
    tmp_path: Path,
    start: Callable[..., Outcome],
    undisturbed: tuple[Path, Outcome],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    root, evaluate = lay_out(tmp_path / "job", _checkpoint_minutes="0"), Trainer.evaluate
    stops: list[threading.Event] = []
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "evaluate", lambda *arguments: (stops[-1].set(), evaluate(*arguments))[1])
        start(root, lambda number, outcome: stops.append(outcome.stop))
    assert [path.name for path in (root / "checkpoints").iterdir()] == ["0-2"]
    resumed = start(root)
    assert len(resumed.rates) == 3
    assert_same(root, resumed, *undisturbed)


def test_a_finished_job_finishes_again_and_goes_on_with_more_epochs(
    tmp_path: Path, start: Callable[..., Outcome], caplog: pytest.LogCaptureFixture
) -> None:
    root = lay_out(tmp_path / "job")
    first = start(root)
    kept = weights(root, "model_algo-1")
    forget_machine(root)
    with caplog.at_level(logging.INFO):
        again = start(root)
    assert again.rates == [] and again.epochs == first.epochs
    assert "Nothing to train: all 2 epochs are complete. To continue, increase epochs." in caplog.text
    for key, array in weights(root, "model_algo-1").items():
        assert np.array_equal(array, kept[key])
    lay_out(root, epochs="3")
    longer = start(root)
    assert len(longer.rates) == 2 and longer.epochs and longer.epochs[:2] == first.epochs
    assert len(longer.epochs) == 3


def test_an_early_stop_stays_a_stop(
    tmp_path: Path, start: Callable[..., Outcome], caplog: pytest.LogCaptureFixture
) -> None:
    settings = {"early_stopping": "True", "early_stopping_min_epochs": "1", "early_stopping_patience": "1"}
    root = lay_out(tmp_path / "job", epochs="30", learning_rate="1e-9", **settings)
    first = start(root)
    assert first.epochs and 1 < len(first.epochs) < 30
    with caplog.at_level(logging.INFO):
        again = start(root)
    assert again.rates == [] and again.epochs == first.epochs
    assert f"Nothing to train: the job stopped early after epoch {len(first.epochs) - 1}." in caplog.text


def spoil_at(step: int, found: list[TinyNetwork]) -> Callable[[int, Outcome], None]:
    """Make the weights NaN before a step, whose loss shows it."""

    def each(number: int, outcome: Outcome) -> None:
        if number == step:
            found[-1].head[1].weight.data()[:] = math.nan

    return each


@pytest.fixture
def networks(monkeypatch: pytest.MonkeyPatch) -> list[TinyNetwork]:
    """All networks that are made from now on."""
    found: list[TinyNetwork] = []
    create = TinyNetwork.__init__
    monkeypatch.setattr(TinyNetwork, "__init__", lambda self, **norm: (create(self, **norm), found.append(self))[0])
    return found


@pytest.mark.parametrize("step", [3, 4])
def test_a_job_that_diverges_late_keeps_its_best_model(
    tmp_path: Path,
    start: Callable[..., Outcome],
    networks: list[TinyNetwork],
    caplog: pytest.LogCaptureFixture,
    step: int,
) -> None:
    root = lay_out(tmp_path / "job")
    outcome = start(root, spoil_at(step, networks))
    assert outcome.epochs and len(outcome.epochs) == 1
    told = "training diverged in epoch 1 (the loss is nan): lower learning_rate, which is 0.1. The job ends."
    assert [record.levelname for record in caplog.records if told in record.getMessage()] == ["ERROR"]
    best, last = weights(root, "model_best.params"), weights(root, "model_algo-1")
    for key in best:
        assert np.isfinite(best[key]).all() and np.array_equal(best[key], last[key])
    for path in (root / "checkpoints").glob("*/weights.params"):
        assert all(np.isfinite(array.asnumpy()).all() for array in mx.nd.load(str(path)).values())


@pytest.mark.parametrize("settings", [{}, {"_ema": "0.9", "_accumulate": "2"}], ids=["plain", "averaged"])
@pytest.mark.parametrize("step", [1, 3, 5])
def test_a_job_that_diverges_may_try_again_from_its_best_weights_with_a_lower_rate(
    tmp_path: Path,
    start: Callable[..., Outcome],
    networks: list[TinyNetwork],
    caplog: pytest.LogCaptureFixture,
    step: int,
    settings: dict[str, str],
) -> None:
    root = lay_out(tmp_path / "job", _on_divergence="retry", _checkpoint_minutes="0", **settings)
    outcome = start(root, spoil_at(step, networks))
    epoch = 0 if step < 3 else 1
    told = [record for record in caplog.records if "The job retries once from" in record.getMessage()]
    assert [record.levelname for record in told] == ["ERROR"]
    assert f"diverged in epoch {epoch} (the loss is nan)" in told[0].getMessage()
    source = "the weights that the epoch or this start began with" if step < 3 else "the best weights, those of epoch 0"
    assert source in told[0].getMessage() and "(0.01 instead of 0.1)" in told[0].getMessage()
    assert outcome.epochs and [entry["epoch"] for entry in outcome.epochs] == [0, 1]
    spoilt = outcome.rates.index(pytest.approx(outcome.rates[0 if epoch == 0 else 2] / 10))
    assert spoilt in (step, step + 1)  # the step after the spoilt one was already under way
    begun = 0 if epoch == 0 else 2
    again = outcome.rates[spoilt:]
    assert len(again) == STEPS - begun
    assert again == pytest.approx([rate / 10 for rate in (outcome.rates[:begun] + expected_rates())[-len(again) :]])
    assert outcome.first_pixels[spoilt : spoilt + step - begun] == outcome.first_pixels[begun:step]  # the same epoch
    for name in ("model_best.params", "model_algo-1"):
        assert all(np.isfinite(array).all() for array in weights(root, name).values())
    forget_machine(root)
    lay_out(root, _on_divergence="retry", _checkpoint_minutes="0", epochs="3", **settings)
    assert start(root).rates[0] == pytest.approx(0.1 * (1 - 2 / 3) ** 0.9 / 10)  # a later start knows that it is lower


def test_a_second_try_is_what_its_checkpoints_hold(
    tmp_path: Path, start: Callable[..., Outcome], networks: list[TinyNetwork]
) -> None:
    """The last checkpoint before it has the same name as the first one after it."""

    def each(number: int, outcome: Outcome) -> None:
        spoil_at(4, networks)(number, outcome)
        stop_at(5)(number, outcome)

    root = lay_out(tmp_path / "job", _on_divergence="retry")
    stopped = start(root, each)
    lower = [rate / 10 for rate in expected_rates()]
    assert stopped.rates[4:] == pytest.approx(lower[2:3])
    forget_machine(root)
    assert start(root).rates == pytest.approx(lower[3:])


def expected_rates() -> list[float]:
    return [0.1 * (1 - at) ** 0.9 for at in (0, 0.25, 0.5, 0.75, 0.75)]


def test_it_tries_again_only_once(tmp_path: Path, start: Callable[..., Outcome], networks: list[TinyNetwork]) -> None:
    def each(number: int, outcome: Outcome) -> None:
        networks[-1].head[1].weight.data()[:] = math.nan

    told = r"training diverged in epoch 0 \(the loss is nan\): lower learning_rate, which is 0\.1 times 0\.1"
    with pytest.raises(ClientError, match=told):
        start(lay_out(tmp_path / "job", _on_divergence="retry"), each)


def test_epochs_between_validations_have_no_score_and_no_say(
    tmp_path: Path, start: Callable[..., Outcome], caplog: pytest.LogCaptureFixture
) -> None:
    settings = {"early_stopping": "True", "early_stopping_min_epochs": "1", "early_stopping_patience": "1"}
    settings["early_stopping_tolerance"] = "1"
    root = lay_out(tmp_path / "job", epochs="9", learning_rate="1e-9", _validation_interval="2", **settings)
    with caplog.at_level(logging.INFO):
        outcome = start(root)
    assert outcome.epochs
    scored = [entry["epoch"] for entry in outcome.epochs if "mIOU" in entry]
    assert scored == [1, 3] and len(outcome.epochs) == 4  # the second score was no better than the first
    assert caplog.text.count("validation mIOU: ") == 2
    assert caplog.text.count("Serializing model to") in (2, 3)  # scores' weights, if they rose, and the last
    root = lay_out(tmp_path / "last", epochs="3", _validation_interval="2")
    outcome = start(root)
    assert outcome.epochs and ["mIOU" in entry for entry in outcome.epochs] == [False, True, True]


def test_a_job_stopped_before_its_first_score_keeps_what_it_has(
    tmp_path: Path, start: Callable[..., Outcome], caplog: pytest.LogCaptureFixture
) -> None:
    root = lay_out(tmp_path / "job", epochs="4", _validation_interval="4")
    start(root, stop_at(4))
    best, last = weights(root, "model_best.params"), weights(root, "model_algo-1")
    assert all(np.array_equal(best[name], last[name]) for name in best)
    forget_machine(root)
    resumed = start(root)
    assert resumed.epochs and ["mIOU" in entry for entry in resumed.epochs] == [False, False, False, True]


def test_a_job_that_diverges_before_it_has_a_model_fails(
    tmp_path: Path, start: Callable[..., Outcome], networks: list[TinyNetwork]
) -> None:
    told = r"training diverged in epoch 0 \(the loss is nan\): lower learning_rate, which is 0\.1"
    with pytest.raises(ClientError, match=told):
        start(lay_out(tmp_path / "job"), spoil_at(1, networks))


def test_weights_that_the_last_step_of_an_epoch_spoilt_are_never_kept(
    tmp_path: Path, start: Callable[..., Outcome]
) -> None:
    """The loss of a step is that of the weights before it: only the weights themselves show what it did to them."""
    root = lay_out(tmp_path / "job", _checkpoint_minutes="0")
    step = Trainer.step

    def spoil(trainer: Trainer, batch: Any, rate: float) -> Any:
        losses = step(trainer, batch, rate)
        if trainer.updates == 2:
            mx.nd.waitall()
            trainer.network.stage4.weight.data()[:] = math.inf
        return losses

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "step", spoil)
        with pytest.raises(ClientError, match=r"epoch 0 \(the parameter stage4.weight is not finite\)"):
            start(root)
    assert not list((root / "checkpoints").iterdir())


def test_a_step_that_was_not_planned_has_the_rate_of_the_last_that_was(
    tmp_path: Path, start: Callable[..., Outcome]
) -> None:
    root = lay_out(tmp_path / "job", train=7, num_training_samples="4", epochs="1", learning_rate="0.5")
    assert start(root).rates == pytest.approx([0.5, 0.5 * 0.5**0.9, 0.5 * 0.5**0.9])


def test_a_changed_job_is_refused_until_it_begins_anew(
    tmp_path: Path, start: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAINING_JOB_NAME", "first")
    root = lay_out(tmp_path / "job")
    start(root, stop_at(4))
    lay_out(root, learning_rate="0.02")
    with pytest.raises(ClientError, match=r"1-2: learning_rate was 0\.1 and is 0\.02\. Undo the changes, set "):
        start(root)
    lay_out(root, train=6)
    with pytest.raises(ClientError, match="channel train held 5 samples and holds 6 samples"):
        start(root)
    (root / "checkpoints" / "notes.txt").write_text("theirs")
    monkeypatch.setenv("TRAINING_JOB_NAME", "second")
    lay_out(root, train=6, learning_rate="0.02", _resume="restart")
    assert len(start(root, stop_at(4)).rates) == 4  # none of the first job's
    assert len(start(root).rates) == 2  # after an interruption its own are what it goes on from
    assert (root / "checkpoints" / "notes.txt").read_text() == "theirs"


def test_a_seed_that_was_drawn_is_kept(tmp_path: Path, start: Callable[..., Outcome]) -> None:
    root = lay_out(tmp_path / "job", _seed=None)
    start(root, stop_at(4))
    drawn = json.loads((root / "model/hyperparams.json").read_text())["_seed"]
    start(root)
    assert json.loads((root / "model/hyperparams.json").read_text())["_seed"] == drawn


def test_a_job_stopped_before_its_first_step_leaves_what_its_checkpoint_has(
    tmp_path: Path, start: Callable[..., Outcome], caplog: pytest.LogCaptureFixture
) -> None:
    root, stop = lay_out(tmp_path / "job"), threading.Event()
    stop.set()
    story.run(Environment.read(root), stop)
    assert "stopped on request before anything was trained: there is no model" in caplog.text
    assert not (root / "model").exists()
    start(root, stop_at(4))
    best = weights(root, "model_best.params")
    forget_machine(root)
    story.run(Environment.read(root), stop)
    assert f"before this start trained anything: the model is that of {root}/checkpoints/1-2" in caplog.text
    assert sorted(path.name for path in (root / "model").iterdir()) == [
        "hyperparams.json",
        "model_algo-1",
        "model_best.params",
    ]
    for key, array in weights(root, "model_best.params").items():
        assert np.array_equal(array, best[key])


class Stream:
    """The samples of a channel as a stream gives them: in one order, with their bytes, unknown beforehand."""

    def __init__(self, samples: Any) -> None:
        self._samples = samples
        self.channel, self.label_map, self.color_map = samples.channel, samples.label_map, None
        self.count = None

    def listed(self) -> None:
        return None

    def epoch(self, rng: np.random.Generator | None, stopped: threading.Event) -> Iterator[PipeSample]:
        for sample in self._samples.epoch(None, stopped):
            yield PipeSample(sample.name, *sample.read())


def stream_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let jobs take their channels for streams."""
    open_samples = inputs.open_samples
    monkeypatch.setattr(inputs, "open_samples", lambda *arguments: Stream(open_samples(*arguments)))


def test_a_stream_is_resumed_at_the_beginning_of_its_pass_with_what_was_left_over(
    tmp_path: Path, start: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stream_samples(monkeypatch)
    undisturbed = lay_out(tmp_path / "undisturbed")
    expected = start(undisturbed)
    root = lay_out(tmp_path / "job", _checkpoint_minutes="0")
    with contextlib.suppress(Crash):
        start(root, crash_at(4))  # the newest checkpoint is the one after the first epoch
    assert (root / "checkpoints/1-0/samples.rec").is_file()
    resumed = start(root)
    assert resumed.first_pixels == expected.first_pixels[2:]
    assert_same(root, resumed, undisturbed, expected)

    root = lay_out(tmp_path / "within")
    start(root, stop_at(4))
    with caplog.at_level(logging.INFO):
        resumed = start(root)
    assert "A stream is read from its start, so the job repeats all samples of epoch 1." in caplog.text
    assert resumed.first_pixels == expected.first_pixels[2:]
    assert resumed.epochs and len(resumed.epochs) == 2


def test_a_stream_is_counted_once_and_resumed_with_its_counts(
    tmp_path: Path, start: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stream_samples(monkeypatch)
    settings = {**RECIPE, "_checkpoint_minutes": "0", "_augmentation": "default", "_rare_crops": "1"}
    undisturbed, root = (lay_out(tmp_path / name, **settings) for name in ("undisturbed", "job"))
    expected = start(undisturbed)
    with contextlib.suppress(Crash):
        start(root, crash_at(4))
    caplog.clear()
    with caplog.at_level(logging.INFO):
        resumed = start(root)
    assert "begins after the first pass" not in caplog.text and "_class_weights=balanced: 0: " in caplog.text
    assert resumed.first_pixels == expected.first_pixels[2:]
    assert_same(root, resumed, undisturbed, expected)


def test_weights_that_no_step_would_have_are_not_announced(
    tmp_path: Path, start: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    settings = {"epochs": "1", "_class_weights": "balanced"}
    with caplog.at_level(logging.INFO), monkeypatch.context() as patched:
        stream_samples(patched)
        start(lay_out(tmp_path, **settings))
    assert "_class_weights=balanced has no effect in the only pass" in caplog.text
    assert "_class_weights=balanced: 0: " not in caplog.text
    caplog.clear()
    with caplog.at_level(logging.INFO):
        start(lay_out(tmp_path / "files", **settings))
    assert "_class_weights=balanced: 0: " in caplog.text  # counted before the pass


def test_a_retry_that_would_change_nothing_is_not_made(
    tmp_path: Path, start: Callable[..., Outcome], networks: list[TinyNetwork], caplog: pytest.LogCaptureFixture
) -> None:
    told = r"^training diverged in epoch 0 \(the loss is nan\): take another optimizer than adadelta"
    with pytest.raises(ClientError, match=told):
        start(lay_out(tmp_path, optimizer="adadelta", _on_divergence="retry"), spoil_at(1, networks))
    assert "The job retries" not in caplog.text


def test_a_model_and_a_checkpoint_are_on_the_disk_before_whole_images_are_validated(
    tmp_path: Path, start: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, seen = lay_out(tmp_path / "job", _validation="full", _checkpoint_minutes="0", epochs="1"), []

    def look(*arguments: Any) -> None:
        found = CheckpointDirectory(root / "checkpoints").newest()
        assert found and found.progress.trained and found.progress.name == "0-2"
        seen.append(weights(root, "model_best.params"))

    monkeypatch.setattr("container.training.scoring.validation.validate_full_images", lambda *arguments: look())
    start(root)
    assert len(seen) == 1
    for name in ("model_best.params", "model_algo-1"):
        assert all(np.array_equal(weights(root, name)[key], array) for key, array in seen[0].items())


@pytest.mark.parametrize("with_checkpoints", [True, False])
def test_a_job_of_long_steps_has_a_model_on_the_disk_within_its_first_epoch(
    tmp_path: Path, start: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch, with_checkpoints: bool
) -> None:
    """Its second step finds what the process would end with, were it to end there."""
    monkeypatch.setattr("container.training.fit.LONG_STEP_SECONDS", 0.0)
    monkeypatch.setattr("container.training.checkpoints.manager.LONG_STEP_SECONDS", 0.0)
    monkeypatch.setattr("container.training.checkpoints.manager._FALLBACK_SECONDS", 0.0)
    root, shutdown, listed = lay_out(tmp_path / "job", _checkpoint_minutes="10"), Shutdown(threading.Event()), []
    if not with_checkpoints:
        (root / "checkpoints").rmdir()

    def look(number: int, outcome: Outcome) -> None:
        if number == 2:
            listed.extend(sorted(path.name for path in (root / "model").iterdir()))
            shutdown.complete_model()
            raise Crash

    with pytest.raises(Crash):
        start(root, look, shutdown)
    assert listed == ["hyperparams.json", "model_algo-1", "model_best.params"][:: 2 if with_checkpoints else 1]
    assert sorted(path.name for path in (root / "model").iterdir()) == [
        "hyperparams.json",
        "model_algo-1",
        "model_best.params",
    ]
    best, last = weights(root, "model_best.params"), weights(root, "model_algo-1")
    assert all(np.array_equal(best[key], last[key]) for key in best)


def test_a_job_that_ends_before_anything_is_on_the_disk_leaves_nothing(
    tmp_path: Path, start: Callable[..., Outcome], caplog: pytest.LogCaptureFixture
) -> None:
    root, shutdown = lay_out(tmp_path / "job"), Shutdown(threading.Event())

    def conclude(number: int, outcome: Outcome) -> None:
        shutdown.complete_model()
        raise Crash

    with pytest.raises(Crash):
        start(root, conclude, shutdown)
    assert not list((root / "model").iterdir())
    assert "stopped on request before anything was trained: there is no model" in caplog.text


def test_a_resumed_jobs_time_is_that_of_all_its_starts(tmp_path: Path, start: Callable[..., Outcome]) -> None:
    """Stopped in its first epoch and in its second: 2 steps of 2 samples, then 3, with the one left over."""
    root = lay_out(tmp_path / "job", epochs="3")
    start(root, stop_at(1))
    start(root, stop_at(3))
    last = start(root)
    assert last.epochs and len(last.epochs) == 3
    samples = [entry["train_throughput"] * entry["train_seconds"] for entry in last.epochs]
    assert samples == pytest.approx([4, 6, 4])
    spent = [entry["train_seconds"] + entry["validation_seconds"] for entry in last.epochs]
    assert last.finish_seconds == pytest.approx((sum(spent) / 3, sum(spent)))


def test_iterations_are_numbered_on_and_the_rates_told_are_those_of_the_next(
    tmp_path: Path, start: Callable[..., Outcome]
) -> None:
    """Epochs of 2, 3 and 2 iterations where 2 were planned, and then 3: the third step of the second was not."""
    found = start(lay_out(tmp_path / "job", epochs="3", learning_rate="0.01", _logging_frequency="1"))
    assert [step for step, _ in found.notices] == [1, 2, 3, 4, 5, 6, 7]
    told = [rate for _, rate in found.notices]
    assert told[:-1] == found.rates[1:]
    assert found.rates == pytest.approx([0.01 * (1 - p / 3) ** 0.9 for p in (0, 0.5, 1, 1.5, 1.5, 2, 2 + 1 / 3)])


def test_a_full_checkpoint_disk_costs_checkpoints_not_the_job(
    tmp_path: Path, start: Callable[..., Outcome], small_disk: SmallDisk, caplog: pytest.LogCaptureFixture
) -> None:
    """Once two checkpoints are there, somebody else takes the rest of the disk; later they give it back."""
    root = lay_out(tmp_path / "job", epochs="3")
    with small_disk(root / "checkpoints", 2**20) as disk:

        def fill(number: int, outcome: Outcome) -> None:
            if number == 4:
                assert len([path for path in disk.iterdir() if path.is_dir()]) == 2
                free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
                (disk / "theirs").write_bytes(bytes(free + 2**13))  # with what the older checkpoint frees, not enough
            if number == 6:
                (disk / "theirs").unlink()

        def fill_later(number: int, outcome: Outcome) -> None:
            with contextlib.suppress(OSError):
                fill(number, outcome)

        found = start(root, fill_later)
        assert found.epochs and len(found.epochs) == 3
        assert "could not be written. Training continues. If the job is interrupted, it resumes from" in caplog.text
        newest = CheckpointDirectory(disk).newest()
        assert newest and newest.progress.epoch == 3


def test_a_checkpoint_disk_that_is_too_small_is_named_before_the_first_step(
    tmp_path: Path, start: Callable[..., Outcome], small_disk: SmallDisk
) -> None:
    root = lay_out(tmp_path / "job", optimizer="adam")
    with small_disk(root / "checkpoints", 2**14), pytest.raises(PlatformError) as raised:
        start(root)
    assert str(raised.value).startswith(
        "the disk is full: use a larger volume (volume_size). "
        f"Two checkpoints, the current and the next, do not fit in {root}/checkpoints: a checkpoint needs "
    )
    assert not (root / "model/hyperparams.json").exists()
