"""How far a job is."""

from __future__ import annotations

from container.training.progress import Progress


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
