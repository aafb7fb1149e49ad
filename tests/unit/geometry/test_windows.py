"""Windows: where they lie, that their weights add up to one, and what is blended of answers that are known."""

from __future__ import annotations

import itertools
import tracemalloc

import numpy as np
import pytest

from container.geometry.windows import Windows, likeliest

SIZES = [(64, 64), (65, 64), (64, 200), (100, 130), (129, 333), (7, 500), (1, 65), (192, 256)]


def drawn(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * width).integers(0, 256, (height, width, 3)).astype(np.uint8)


def by_pixel(image: np.ndarray) -> np.ndarray:
    """The answer of a network that sees only one pixel: two classes, by red."""
    red = image[:, :, 0].astype(np.float32) / 255
    return np.stack([1 - red, red])


def blended(windows: Windows, compute: object, image: np.ndarray, num_classes: int = 2) -> np.ndarray:
    found = np.full((num_classes, *image.shape[:2]), np.nan, np.float32)
    for rows, band in windows.blend(compute, image, num_classes):  # type: ignore[arg-type]
        assert np.isnan(found[:, rows]).all()  # no row is given twice
        found[:, rows] = band
    return found


def test_windows_by_hand() -> None:
    windows = Windows(100, 0.25)
    assert windows.starts(100) == windows.starts(40) == [0]
    assert windows.starts(101) == [0, 1]
    assert windows.starts(175) == [0, 75]
    assert windows.starts(176) == [0, 38, 76]
    assert windows.starts(250) == [0, 75, 150]
    assert windows.pixels(250, 175) == 3 * 2 * 104 * 104  # 100 pixels are 13 cells
    assert windows.pixels(40, 250) == 3 * 40 * 104
    assert windows.pixels(40, 60) == 40 * 64
    assert [windows.divide(*size) for size in ((100, 100), (100, 101), (101, 1))] == [False, True, True]


@pytest.mark.parametrize("overlap", [0.01, 0.25, 0.5, 0.75])
def test_neighbors_share_what_was_asked_for_and_nothing_is_left_out(overlap: float) -> None:
    windows = Windows(64, overlap)
    for length in range(1, 600):
        starts, side = windows.starts(length), min(length, 64)
        assert (starts[0], starts[-1] + side) == (0, length)
        for one, other in itertools.pairwise(starts):
            assert 0 < other - one <= max(1, 64 * (1 - overlap))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("overlap", [0.01, 0.25, 0.75])
def test_a_network_that_sees_one_pixel_is_blended_to_itself(size: tuple[int, int], overlap: float) -> None:
    image = drawn(*size)
    np.testing.assert_allclose(blended(Windows(64, overlap), by_pixel, image), by_pixel(image), atol=1e-6)


def test_one_window_gives_the_answer_bit_by_bit() -> None:
    scores = np.random.default_rng(3).random((5, 50, 64), np.float32)
    assert np.array_equal(blended(Windows(64, 0.25), lambda image: scores, drawn(50, 64), 5), scores)


def test_there_is_no_seam() -> None:
    """Windows that contradict each other, 0 and 1 in turn, pass into one another linearly."""
    turns = itertools.cycle([0.0, 1.0])

    def contradicting(window: np.ndarray) -> np.ndarray:
        value = next(turns)
        return np.stack([np.full(window.shape[:2], share, np.float32) for share in (1 - value, value)])

    row = blended(Windows(100, 0.25), contradicting, drawn(1, 250))[1, 0]  # at 0, 75 and 150
    assert row[:75].tolist() == [0.0] * 75 and row[175:].tolist() == [0.0] * 75
    np.testing.assert_allclose(row[75:100], np.arange(1, 26) / 26, rtol=1e-5)  # 25 pixels are shared
    assert row[100:150].tolist() == [1.0] * 50
    np.testing.assert_allclose(row[150:175], np.arange(25, 0, -1) / 26, rtol=1e-5)


def test_it_is_the_same_along_both_sides() -> None:
    """The mean of all windows' own means, weighed by hand: the product of both sides' weights."""
    windows = Windows(64, 0.25)
    image = drawn(100, 130)

    def mean(window: np.ndarray) -> np.ndarray:
        return np.full((1, *window.shape[:2]), window.mean(), np.float32)

    across = blended(windows, mean, image, 1)[0]
    turned = blended(windows, mean, image.transpose(1, 0, 2), 1)[0]
    np.testing.assert_allclose(turned.T, across, rtol=1e-5)
    # at (50, 5): windows begin at 0 and 36 downwards, at 0 across; 50 is the 51st of one, the 15th of the other
    first, second = image[:64, :64].mean(), image[36:, :64].mean()
    assert across[50, 5] == pytest.approx((14 * first + 15 * second) / 29, rel=1e-5)


def test_the_likeliest_class_is_the_first_of_the_highest() -> None:
    scores = np.random.default_rng(1).integers(0, 4, (7, 30, 40)).astype(np.float32)
    found = likeliest(scores)
    assert found.dtype == np.uint8 and np.array_equal(found, scores.argmax(0))


def test_what_blending_holds_is_what_is_stated() -> None:
    windows, image = Windows(64, 0.25), drawn(1000, 1200)
    scores = [np.ones((8, 64, 64), np.float32)]

    def compute(window: np.ndarray) -> np.ndarray:
        return scores[0].copy()

    tracemalloc.start()
    for _, band in windows.blend(compute, image, 8):
        likeliest(band)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 0.7 * windows.memory(8, 1000, 1200) < peak < windows.memory(8, 1000, 1200)
    assert windows.memory(8, 10**6, 1200) == windows.memory(8, 64, 1200)  # however high the image
