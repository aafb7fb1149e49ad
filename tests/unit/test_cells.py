"""What images of partial cells cost: the network computes every cell of 8×8 pixels in full."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from container.engines import costs, heads
from container.engines.costs import MemoryModel
from container.engines.subprocess_engine import _most_pixels
from container.geometry import tiles
from container.geometry.windows import Windows

PER_PIXEL = 310
FCN = MemoryModel(21, 223, PER_PIXEL)


@pytest.mark.parametrize(
    ("size", "expected"),
    [((1, 2_400_000), 19_200_000), ((1, 1), 64), ((8, 16), 128), ((9, 17), 16 * 24), ((640, 800), 512_000)],
)
def test_partial_cells_count_in_full(size: tuple[int, int], expected: int) -> None:
    assert tiles.padded_pixels(*size) == tiles.padded_pixels(*size[::-1]) == expected


@pytest.mark.parametrize("size", [(1, 64_000), (2, 64_000), (64_000, 1), (9, 32_000), (32_000, 9), (640, 800)])
@pytest.mark.parametrize("reach", [223, None])
def test_the_plan_covers_the_network_whatever_the_form(size: tuple[int, int], reach: int | None) -> None:
    plan = MemoryModel(21, reach, PER_PIXEL).plan(*size, 2**40)
    assert plan.pixels == 512_000
    assert PER_PIXEL * 512_000 - costs.STANDING < plan.memory < 2.5 * PER_PIXEL * 512_000


def test_tiles_of_a_row_of_pixels_are_as_large_as_those_of_others() -> None:
    plan = FCN.plan(1, 2_400_000, 2**31)
    assert plan.tile is not None and plan.memory <= 2**31
    seen = [tile.image for tile in tiles.split(1, 2_400_000, 223, plan.tile)]
    assert all(8 * -(-(across.stop - across.start) // 8) * 8 <= plan.tile for _, across in seen)
    assert plan.pixels >= 19_200_000


def test_a_window_of_partial_cells_counts_in_full() -> None:
    windows = Windows(100, 0.25)
    assert windows.largest(1, 1000) == 8 * 104
    assert windows.pixels(1, 175) == 2 * 8 * 104


def test_a_head_holds_the_scores_before_the_resize_of_a_row_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heads, "BAND_VALUES", 800)
    assert heads.band_values(2, 1000, 1) == 50 * 2 * 8  # 50 rows of one cell
    assert heads.band_values(2, 1000, 50) == 7 * 2 * 56
    assert heads.band_values(2, 3, 1) == 3 * 2 * 8
    assert heads.band_values(2, 3, 1000) == 2 * 1000  # a row is the least


def test_the_float32_model_for_one_column_is_part_of_the_plan() -> None:
    exact = dataclasses.replace(FCN, loaded=10**9)
    planner = dataclasses.replace(FCN, bytes_per_pixel=158, exact=exact)
    for size in ((100, 8), (9, 1)):
        plan = planner.plan(*size, 2**40)
        assert 10**9 <= plan.memory <= 10**9 + FCN.plan(*size, 2**40).memory
        # compiling takes the time of 0.2 million pixels or more, however small the image is
        assert 200_000 < plan.pixels < 400_000
    for size in ((100, 9), (8, 100), (8, 8), (1, 1)):
        assert planner.plan(*size, 2**40) == dataclasses.replace(planner, exact=None).plan(*size, 2**40)


@pytest.mark.parametrize(("feature", "precision", "exact"), [
    ("amx_tile", "bfloat16", 1000), ("amx_tile", "int8", 4000), ("amx_tile", "float32", None), ("avx512f", "int8", None)
])  # fmt: skip
def test_only_processors_with_amx_need_it(
    monkeypatch: pytest.MonkeyPatch, feature: str, precision: str, exact: int | None
) -> None:
    monkeypatch.setattr(costs, "processor_has", lambda name: name == feature)
    megabyte = 2**20
    found = MemoryModel.of(21, 223, precision, "fcn", is_narrow=False, weights=1000 * megabyte).exact
    assert (found and found.loaded) == (exact and int(2.25 * exact * megabyte))


def test_an_image_that_the_child_admits_can_be_planned() -> None:
    memory = 2**30
    most = _most_pixels(MemoryModel(21, None, PER_PIXEL), memory)
    side = int(np.sqrt(most)) // 8 * 8
    for size in ((side, side), (16, most // 16 - 8), (most // 16 - 8, 16), (17, most // 32)):
        assert tiles.padded_pixels(*size) <= most
        MemoryModel(21, None, PER_PIXEL).plan(*size, memory - 8 * size[0] * size[1])
    assert most * PER_PIXEL > 0.7 * memory
