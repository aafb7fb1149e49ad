"""What should move in the first update, moves, as a float32 gradient that a trainer had no part in says."""

from __future__ import annotations

from pathlib import Path

import mxnet as mx
import numpy as np
import pytest

from container.environment import processor_has
from tests.gpu.movement import (
    CHOICES,
    PLAIN,
    Arrays,
    all_cases,
    check_movement,
    direction,
    expected,
    moved,
    moved_in_mixed_precision,
    moved_twice,
    pairwise,
)
from tests.mx.tiny import cpus

CASES = all_cases()
IDS = [
    "-".join(f"{name.strip('_')}={value}" for name, value in case.items() if value != PLAIN[name]) or "plain"
    for case in CASES
]


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Arrays], Arrays, Arrays]:
    if not processor_has("avx512bw"):
        pytest.skip("this processor does not train in bfloat16")
    return moved_in_mixed_precision(2, tmp_path_factory.mktemp("mixed") / "moved.npz")


@pytest.fixture(scope="module")
def wanted() -> dict[int, Arrays]:
    return {}


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("number", range(len(CASES)), ids=IDS)
def test_what_should_move_moves_in_the_direction_of_float32(
    number: int, precision: str, wanted: dict[int, Arrays], request: pytest.FixtureRequest
) -> None:
    case = CASES[number]
    if number not in wanted:
        wanted[number] = expected(case)
    found = moved(case, cpus(2), precision) if precision == "float32" else request.getfixturevalue("mixed")[0][number]
    check_movement(case, found, wanted[number], exact=precision == "float32")


def test_every_pair_of_choices_is_in_a_case() -> None:
    cases = pairwise(CHOICES)
    for one, values in CHOICES.items():
        for two, others in CHOICES.items():
            if one != two:
                found = {(str(case[one]), str(case[two])) for case in cases}
                assert found == {(str(a), str(b)) for a in values for b in others}


def test_bfloat16_goes_on_amid_an_update_as_if_it_had_not_stopped(
    mixed: tuple[list[Arrays], Arrays, Arrays], tmp_path: Path
) -> None:
    through, resumed = mixed[1:]
    exact = moved_twice(mx.cpu(), "float32", tmp_path, resumes=False)
    for name, movement in through.items():
        np.testing.assert_allclose(resumed[name], movement, rtol=1e-3, atol=1e-4 * np.abs(movement).max())
        if name.endswith("weight"):
            assert direction(movement, exact[name])[0] > 0.9, name
