"""The averages of weights: what they are, and that they are what is scored and kept."""

from __future__ import annotations

from pathlib import Path

import mxnet as mx
import numpy as np
import pytest

from tests.mx import tiny


@pytest.mark.parametrize(("devices", "static"), [(1, False), (2, False), (1, True)])
def test_the_average_is_that_of_all_weights_so_far(devices: int, static: bool) -> None:
    trainer = tiny.tiny_trainer(tiny.cpus(devices), tiny.tiny_job(_ema=0.3, _hybrid=static))
    expected = {name: arrays[0].astype(np.float64) for name, arrays in tiny.copies(trainer).items()}
    for number in range(4):
        tiny.train(trainer, [tiny.batch(4, number)], number, 0.1)
        mx.nd.waitall()
        decay = min(0.3, (2 + number) / (11 + number))  # update n = number + 1: (1 + n) / (10 + n)
        for name, arrays in tiny.copies(trainer).items():
            expected[name] = decay * expected[name] + (1 - decay) * arrays[0]
    assert trainer.averages
    for name, array in trainer.averages.arrays.items():
        np.testing.assert_allclose(array.asnumpy(), expected[name], rtol=1e-5, atol=1e-6, err_msg=name)
    own = tiny.copies(trainer)["stem.1.running_mean"][0]
    assert np.abs(expected["stem.1.running_mean"] - own).max() > 1e-3  # statistics, too


@pytest.mark.parametrize("devices", [1, 2])
def test_averages_are_what_is_scored_and_kept_while_training_goes_on_with_its_own(tmp_path: Path, devices: int) -> None:
    trainer = tiny.tiny_trainer(tiny.cpus(devices), tiny.tiny_job(_ema=0.9))
    tiny.train(trainer, [tiny.batch(4, seed) for seed in range(3)], rate=0.5)
    own = tiny.copies(trainer)
    trainer.save_weights(tmp_path / "kept")
    kept = mx.nd.load(str(tmp_path / "kept"))
    score = trainer.evaluate([tiny.batch(4, seed=9)], 3)[0].counts
    for name, arrays in tiny.copies(trainer).items():
        for array, before in zip(arrays, own[name], strict=True):
            assert np.array_equal(array, before), name
    plain = tiny.tiny_trainer(tiny.cpus(1), tiny.tiny_job())
    plain.load_weights(tmp_path / "kept")
    assert np.array_equal(plain.evaluate([tiny.batch(4, seed=9)], 3)[0].counts, score)
    plain.set_own_weights(trainer.own_weights())
    assert not np.array_equal(plain.evaluate([tiny.batch(4, seed=9)], 3)[0].counts, score)
    assert not np.array_equal(kept["stage4.weight"].asnumpy(), own["stage4.weight"][0])


def test_a_score_that_fails_leaves_the_networks_own_weights() -> None:
    trainer = tiny.tiny_trainer(tiny.cpus(2), tiny.tiny_job(_ema=0.9))
    tiny.train(trainer, [tiny.batch(4)], rate=0.5)
    own = tiny.copies(trainer)
    with pytest.raises(RuntimeError), trainer.evaluated_weights():
        raise RuntimeError
    for name, arrays in tiny.copies(trainer).items():
        assert all(np.array_equal(array, before) for array, before in zip(arrays, own[name], strict=True))


def test_what_does_not_move_keeps_its_average_to_the_last_bit() -> None:
    trainer = tiny.tiny_trainer(tiny.cpus(1), tiny.tiny_job(_ema=0.37, _aux_loss=False))
    start = tiny.copies(trainer)["auxlayer.0.weight"][0]
    tiny.train(trainer, [tiny.batch(4)] * 5, rate=0.1)
    assert trainer.averages
    assert np.array_equal(trainer.averages.arrays["auxlayer.0.weight"].asnumpy(), start)
