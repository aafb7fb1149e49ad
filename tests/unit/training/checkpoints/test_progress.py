"""How far a job is."""

from __future__ import annotations

from container.training.checkpoints.progress import Progress


def test_a_closed_epoch_leaves_its_figures_and_the_beginning_of_the_next() -> None:
    progress = Progress(9, epoch=2, iteration=9, groups=10, samples=18, loss=4.5, trained=True)
    assert progress.name == "2-9"
    progress.close_epoch({"mIOU": 0.5})
    assert progress == Progress(9, epoch=3, steps=9, history=[{"epoch": 2, "mIOU": 0.5}])
    assert progress.name == "3-0"


def test_an_epoch_is_reopened_unless_its_pass_is_done() -> None:
    within = Progress(9, epoch=2, iteration=4, groups=5, samples=8, loss=1.0)
    assert within.reopen_epoch() == Progress(9, epoch=2)
    assert within.iteration == 4
    done = Progress(9, epoch=2, iteration=9, groups=9, samples=18, loss=4.5, trained=True)
    assert done.reopen_epoch() == done


def test_the_best_epoch_is_one_that_was_scored() -> None:
    progress = Progress(9)
    assert progress.best is None
    for figures in ({}, {"mIOU": 0.5}, {}, {"mIOU": 0.5}, {"mIOU": 0.4}):
        progress.close_epoch(figures)
    assert progress.best == {"epoch": 1, "mIOU": 0.5}
    assert [entry["epoch"] for entry in progress.scored] == [1, 3, 4]


def test_an_epoch_that_begins_again_keeps_what_came_before_it() -> None:
    progress = Progress(9, epoch=2, iteration=4, groups=5, samples=8, loss=1.0, steps=18, history=[{"epoch": 1}])
    progress.begin_again()
    assert progress == Progress(9, epoch=2, steps=18, lowered=True, history=[{"epoch": 1}])


def test_the_time_of_a_job_is_that_of_all_its_starts() -> None:
    """Two whole epochs, of which one was not validated, and 30 s of a third."""
    history = [{"epoch": 0, "train_seconds": 100.0, "validation_seconds": 20.0}, {"epoch": 1, "train_seconds": 80.0}]
    progress = Progress(9, epoch=2, iteration=3, seconds=30.0, history=history)
    assert (progress.job_seconds, progress.epoch_seconds) == (230.0, 100.0)
    progress.close_epoch({"train_seconds": 40.0, "validation_seconds": None})  # a table may have no figure
    assert progress.seconds == 0.0
    assert (progress.job_seconds, progress.epoch_seconds) == (240.0, 80.0)


def test_without_a_whole_epoch_the_one_under_way_says_how_long_one_takes() -> None:
    progress = Progress(9, iteration=3, seconds=30.0)
    assert (progress.job_seconds, progress.epoch_seconds) == (30.0, 90.0)
    assert Progress(9).epoch_seconds == 0.0
