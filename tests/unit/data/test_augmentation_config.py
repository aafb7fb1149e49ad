"""What stronger augmentation does to a crop: colours by hand, geometry by what image and labels say of their place."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from container.data.augment import random_crop
from container.data.augmentation_config import STRONG, AugmentationConfig, jitter, mask_squares, parse_augmentation
from tests.unit.data.test_augment import coordinates


def test_strong_is_what_the_schema_says() -> None:
    written = {"colour": 0.4, "rotation": 15, "vertical_flip": 0.5, "scale": [0.5, 2], "dropout": 0.1}
    assert parse_augmentation("strong") == parse_augmentation(written) == STRONG
    assert parse_augmentation("default") == parse_augmentation({}) == AugmentationConfig()
    assert parse_augmentation({"rotation": 5}) == AugmentationConfig(rotation=5)


def test_the_default_draws_the_same_numbers_as_ever() -> None:
    image, labels = coordinates(120, 160)
    rng = np.random.default_rng(3)
    random_crop(image, labels, 160, 64, rng)
    expected = np.random.default_rng(3)
    expected.uniform(0.5, 2.0)
    scale = 160 * np.random.default_rng(3).uniform(0.5, 2.0) / 160
    for length in (120, 160):
        expected.integers(0, length - min(length, round(64 / scale)) + 1)
    expected.random()
    if expected.random() < 0.5:
        expected.random()
    assert rng.random() == expected.random()


def test_colours_change_as_worked_out_by_hand() -> None:
    class Drawn:
        def uniform(self, low: float, high: float, count: int) -> list[float]:
            assert (low, high, count) == (0.5, 1.5, 3)
            return [1.2, 0.5, 1.5]  # brightness, contrast, saturation

    crop = np.array([[[100, 50, 0], [200, 200, 200]]], np.uint8)
    # brighter: (120, 60, 0) and (240, 240, 240), whose greys are 71.1 and 240, 155.55 on average;
    # half the contrast: (137.775, 107.775, 77.775), gray 113.325, and 197.775 thrice; half as much colour again:
    assert jitter(crop, 0.5, Drawn()).tolist() == [[[150, 105, 60], [198, 198, 198]]]  # type: ignore[arg-type]


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.9])
def test_holes_are_mean_colour_and_ignored_and_no_more_than_their_share(share: float) -> None:
    crop, labels = np.full((64, 64, 3), 9, np.uint8), np.ones((64, 64), np.uint8)
    shares = []
    for seed in range(60):
        holed, ignored = mask_squares(crop, labels, share, np.random.default_rng(seed))
        assert np.array_equal(ignored == 255, (holed == (124, 116, 104)).all(axis=2))
        assert set(np.unique(holed[ignored != 255])) <= {9}
        shares.append(float((ignored == 255).mean()))
    assert max(shares) <= share * 1.2 + 0.01 and max(shares) > share * 0.9
    assert labels.all() and (crop == 9).all()  # the sample's own are untouched


@pytest.mark.parametrize("size", [(33, 70), (375, 500), (1, 1), (7, 333), (240, 240)])
def test_every_size_gives_a_full_square(size: tuple[int, int]) -> None:
    image, labels = coordinates(*size)
    for seed in range(20):
        strengths = AugmentationConfig(0.4, (15, 90, 180)[seed % 3], 0.5, (0.3, 3), 0.2)
        rng = np.random.default_rng(seed)
        anchor = None if seed % 2 else (int(rng.integers(size[0])), int(rng.integers(size[1])))
        crop, crop_labels = random_crop(image, labels, 200, 96, rng, strengths, anchor)
        assert crop.shape == (96, 96, 3) and crop.dtype == crop_labels.dtype == np.uint8
        assert crop_labels.shape == (96, 96)


def test_image_and_labels_stay_together_when_they_are_turned_and_flipped() -> None:
    image, labels = coordinates(240, 320)
    upside_down = 0
    for seed in range(30):
        strengths = AugmentationConfig(rotation=40, vertical_flip=0.5)
        crop, crop_labels = random_crop(image, labels, 320, 96, np.random.default_rng(seed), strengths)
        rows, columns = crop[:, :, 0].astype(float) * 240 / 255, crop[:, :, 1].astype(float) * 320 / 255
        told = (rows // 16) % 8 * 8 + (columns // 16) % 8
        sure = (crop_labels != 255) & (np.abs(rows % 16 - 8) < 5) & (np.abs(columns % 16 - 8) < 5)
        sure[:, [0, -1]] = sure[[0, -1]] = False
        assert sure.mean() > 0.05
        assert (told[sure] == crop_labels[sure]).mean() > 0.97
        upside_down += rows[10, 48] > rows[85, 48]
    assert 5 < upside_down < 25


def test_a_turned_crop_is_filled_from_around_it() -> None:
    image, labels = np.full((300, 300, 3), 80, np.uint8), np.ones((300, 300), np.uint8)
    strengths = AugmentationConfig(rotation=45, scale=(1, 1))
    for seed in range(20):
        crop, crop_labels = random_crop(image, labels, 300, 64, np.random.default_rng(seed), strengths, (150, 150))
        assert (crop_labels == 1).all() and (crop == 80).all()
    crop_labels = random_crop(image, labels, 300, 300, np.random.default_rng(1), strengths)[1]
    assert 0 < (crop_labels == 255).mean() < 0.3  # there is nothing around the whole image
    assert crop_labels[150, 150] == 1


@pytest.mark.parametrize("rotation", [0, 30])
def test_the_angle_is_as_large_as_it_may_be_and_lies_in_both_directions(rotation: float) -> None:
    """A horizontal edge through the middle shows the angle."""
    image, labels = np.zeros((200, 200, 3), np.uint8), np.zeros((200, 200), np.uint8)
    labels[100:] = 1
    angles = []
    for seed in range(60):
        strengths = AugmentationConfig(rotation=rotation, scale=(1, 1))
        crop = random_crop(image, labels, 200, 80, np.random.default_rng(seed), strengths, (100, 100))[1]
        edge = [int(np.argmax(crop[:, column] == 1)) for column in (15, 65)]
        angles.append(math.degrees(math.atan2(edge[1] - edge[0], 50)))
    assert max(angles) == pytest.approx(rotation, abs=3) and min(angles) == pytest.approx(-rotation, abs=3)


@pytest.mark.parametrize(
    "strengths", [AugmentationConfig(), STRONG, AugmentationConfig(rotation=180)], ids=["default", "strong", "any"]
)
@pytest.mark.parametrize("place", [(0, 0), (59, 79), (30, 5), (3, 40), (31, 41)])
def test_crop_contains_its_anchor(strengths: AugmentationConfig, place: tuple[int, int]) -> None:
    image, labels = np.zeros((60, 80, 3), np.uint8), np.zeros((60, 80), np.uint8)
    cv2.circle(labels, place[::-1], 2, 1, -1)
    strengths = AugmentationConfig(strengths.color, strengths.rotation, strengths.vertical_flip, strengths.scale)
    for seed in range(30):
        crop_labels = random_crop(image, labels, 160, 32, np.random.default_rng(seed), strengths, place)[1]
        assert (crop_labels == 1).any()


def test_a_crop_lies_about_its_pixel_as_nearly_as_the_borders_allow() -> None:
    image, labels = np.zeros((100, 100, 3), np.uint8), np.zeros((100, 100), np.uint8)
    labels[50, 50] = 1
    for seed in range(10):
        rng = np.random.default_rng(seed)
        crop_labels = random_crop(image, labels, 100, 20, rng, AugmentationConfig(scale=(1, 1)), (50, 50))[1]
        ((row, column),) = np.argwhere(crop_labels == 1).tolist()
        assert row == 10 and column in (9, 10)  # mirrored or not


def test_one_pixel_is_enlarged_and_turned_at_no_more_cost_than_the_crop() -> None:
    """Enlarged first, it would have 40,000 pixels a side, more than OpenCV takes."""
    strengths = AugmentationConfig(rotation=15, scale=(10, 10))
    image, labels = np.full((1, 1, 3), 9, np.uint8), np.ones((1, 1), np.uint8)
    crop, crop_labels = random_crop(image, labels, 4000, 240, np.random.default_rng(0), strengths)
    assert crop.shape == (240, 240, 3) and set(np.unique(crop_labels)) <= {1, 255}
