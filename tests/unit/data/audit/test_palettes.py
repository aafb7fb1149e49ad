"""Palettes whose indices are not the class IDs: one warning names the files, and its fix works."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from container.environment import Environment
from container.errors import ClientError
from container.training import run
from tests.conftest import JobFactory

VOC = {0: (0, 0, 0), 1: (128, 0, 0), 15: (192, 128, 128), 255: (224, 224, 192)}
GRAYS = {value: (value, value, value) for value in range(256)}

Colors = dict[int, tuple[int, int, int]]


def mask(*values: int) -> np.ndarray:
    """Stripes of the values from left to right; the first has half of the columns."""
    pixels = np.full((40, 48), values[0], np.uint8)
    for place, value in enumerate(values[1:]):
        pixels[:, 24 + 8 * place : 32 + 8 * place] = value
    return pixels


def full(colors: Colors, *values: int) -> Image.Image:
    """A palette image whose indices are the values."""
    image = Image.fromarray(mask(*values), "P")
    image.putpalette([part for index in range(256) for part in colors.get(index, (index, index, 1))])
    return image


def condensed(colors: Colors, *values: int) -> Image.Image:
    """A palette image of only the colors that occur, as optimizers write it: the indices are 0, 1, 2."""
    present = np.unique(values)
    image = Image.fromarray(np.searchsorted(present, mask(*values)).astype(np.uint8), "P")
    image.putpalette([part for value in present for part in colors[int(value)]])
    return image


def gray(*values: int) -> Image.Image:
    return Image.fromarray(mask(*values))


def job(
    make_job: JobFactory, train: list[Image.Image], validation: list[Image.Image] | None = None, num_classes: str = "21"
) -> Path:
    root = make_job(train=len(train), validation=len(validation or train), num_classes=num_classes)
    for channel, images in (("train", train), ("validation", validation or train)):
        for number, image in enumerate(images):
            image.save(root / f"input/data/{channel}_annotation/{channel}-{number}.png")
    return root


def audit(root: Path) -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "train", lambda *arguments: True)
        run.run(Environment.read(root), threading.Event())
    found: dict[str, Any] = json.loads((root / "output/data/audit.json").read_text())
    return found


def palette_warnings(root: Path) -> list[dict[str, Any]]:
    return [warning for warning in audit(root)["warnings"] if warning["kind"] == "palette"]


@pytest.mark.parametrize(
    ("annotations", "odd"),
    [
        ([condensed(GRAYS, 0, 3), gray(0, 3)], [0]),
        ([condensed(GRAYS, 0, 1, 255), gray(0, 1, 255)], [0]),
        ([condensed(GRAYS, 0, 1, 3), condensed(GRAYS, 0, 1, 3)], [0, 1]),
        ([condensed(GRAYS, 0, 1), condensed(GRAYS, 0, 3), gray(0, 1)], [1]),
        ([full({0: (255, 255, 255), 1: (0, 0, 0)}, 0, 1), gray(0, 1, 255)], [0]),
    ],
)
def test_a_gray_palette_that_hides_the_pixel_values_is_named(
    make_job: JobFactory, annotations: list[Image.Image], odd: list[int]
) -> None:
    root = job(make_job, annotations)
    expected = [
        [f"{root}/input/data/{channel}/{channel}-{number}.jpg" for number in odd] for channel in ("train", "validation")
    ]
    found = palette_warnings(root)
    assert [warning["details"] for warning in found] == expected
    assert all("convert('L')" in warning["message"] for warning in found)


def test_saving_without_the_palette_gives_the_pixel_values(make_job: JobFactory) -> None:
    root = job(make_job, [condensed(GRAYS, 0, 3, 15), gray(0, 3, 15)])
    assert palette_warnings(root)
    for path in (root / "input/data").glob("*_annotation/*.png"):
        Image.open(path).convert("L").save(path)
    assert not palette_warnings(root)
    classes = audit(root)["channels"]["train"]["classes"]
    assert {entry["id"]: entry["pixels"] for entry in classes if entry["pixels"]} == {
        0: 2 * 40 * 32,
        3: 2 * 40 * 8,
        15: 2 * 40 * 8,
    }


@pytest.mark.parametrize(
    ("train", "validation", "odd"),
    [
        ([full(VOC, 0, 15), condensed(VOC, 0, 15)], None, {"train-1", "validation-1"}),
        ([full(VOC, 0, 15)] * 2, [condensed(VOC, 0, 15)], {"validation-0"}),
    ],
)
def test_a_color_with_two_indices_is_named_and_a_color_map_reads_it(
    make_job: JobFactory, train: list[Image.Image], validation: list[Image.Image] | None, odd: set[str]
) -> None:
    root = job(make_job, train, validation)
    (warning,) = palette_warnings(root)
    assert {Path(detail).stem for detail in warning["details"]} == odd
    assert "example #c08080 is index 1 in" in warning["message"]
    for channel in ("train", "validation"):
        path = root / f"input/data/label_map/{channel}_label_map.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"colors": {"#000000": 0, "#c08080": 15}}))
    found = audit(root)
    assert not [warning for warning in found["warnings"] if warning["kind"] == "palette"]
    assert found["channels"]["train"]["classes"][15]["pixels"] == 2 * 40 * 8


@pytest.mark.parametrize(
    "annotations",
    [
        [full(VOC, 0, 15, 255), full(VOC, 0, 1)],
        [full(VOC, 0, 15), gray(0, 15, 255)],
        [full(GRAYS, 0, 1, 3), gray(0, 1, 3)],
        [condensed(GRAYS, 0, 1), gray(0, 1)],
        [full({0: (255, 255, 255), 1: (0, 0, 0)}, 0, 1), gray(0, 1)],
        [full({0: (0, 0, 0), 1: (255, 255, 255)}, 0, 1), gray(0, 1)],
        [full({index: (9, 9, 9) for index in range(256)}, 0, 1, 2)] * 2,
        [full({index: (12 * index,) * 3 for index in range(21)}, 0, 1, 20)] * 2,
    ],
)
def test_palettes_of_class_ids_get_no_warning(make_job: JobFactory, annotations: list[Image.Image]) -> None:
    assert not palette_warnings(job(make_job, annotations))


def test_palettes_may_differ_where_colors_decide(make_job: JobFactory) -> None:
    root = job(make_job, [condensed(VOC, 0, 1), condensed(VOC, 0, 15)])
    assert palette_warnings(root)
    for channel in ("train", "validation"):
        path = root / f"input/data/label_map/{channel}_label_map.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"colors": {"#000000": 0, "#800000": 1, "#c08080": 15}}))
    assert not palette_warnings(root)


@pytest.mark.parametrize(
    ("annotation", "num_classes", "fix"),
    [
        (condensed(GRAYS, 0, 1, 255), "2", "index 2 has the gray value 255\\), save the annotations without a palette"),
        (condensed(VOC, 0, 15, 255), "2", 'Index 2 is #e0e0c0, the border color of Pascal VOC, .* with {"colors": …}'),
    ],
)
def test_renumbered_ignore_value_is_reported_if_it_is_not_a_class(
    make_job: JobFactory, annotation: Image.Image, num_classes: str, fix: str
) -> None:
    root = job(make_job, [annotation] * 2, num_classes=num_classes)
    with pytest.raises(ClientError, match=fix):
        audit(root)
    for path in (root / "input/data").glob("*_annotation/*.png"):
        Image.open(path).convert("L").save(path)
    if "gray" in fix:
        assert [entry["pixels"] for entry in audit(root)["channels"]["train"]["classes"]] == [2 * 40 * 32, 2 * 40 * 8]
