"""Crops: geometry against Pillow and by hand, the same for an image and its labels."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from container.data.augment import center_crop, random_crop


def coordinates(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """An image whose red and green say where a pixel comes from, and labels that say it in blocks of 16."""
    rows, columns = np.mgrid[:height, :width]
    image = np.stack([rows * 255 / height, columns * 255 / width, np.zeros_like(rows)], axis=2).astype(np.uint8)
    return image, ((rows // 16) % 8 * 8 + (columns // 16) % 8).astype(np.uint8)


def test_center_crop_is_pillows() -> None:
    image, labels = coordinates(96, 160)
    crop, crop_labels = center_crop(image, labels, 48)
    box = (32, 0, 128, 96)
    expected = np.asarray(Image.fromarray(image).crop(box).resize((48, 48), Image.Resampling.BOX))
    assert np.abs(crop.astype(int) - expected).max() <= 1
    expected_labels = np.asarray(Image.fromarray(labels).crop(box).resize((48, 48), Image.Resampling.NEAREST))
    assert np.array_equal(crop_labels, expected_labels)


@pytest.mark.parametrize("size", [(33, 70), (375, 500), (1, 1), (7, 333), (240, 240)])
def test_every_size_gives_a_full_square(size: tuple[int, int]) -> None:
    image, labels = coordinates(*size)
    for seed in range(20):
        crop, crop_labels = random_crop(image, labels, 520, 240, np.random.default_rng(seed))
        assert crop.shape == (240, 240, 3) and crop.dtype == np.uint8
        assert crop_labels.shape == (240, 240) and crop_labels.dtype == np.uint8
    crop, crop_labels = center_crop(image, labels, 240)
    assert crop.shape == (240, 240, 3)
    assert 255 not in crop_labels


def test_what_the_image_does_not_cover_is_mean_color_and_ignored() -> None:
    image, labels = np.full((20, 40, 3), 250, np.uint8), np.ones((20, 40), np.uint8)
    for seed in range(20):
        crop, crop_labels = random_crop(image, labels, 40, 96, np.random.default_rng(seed))
        far = crop_labels == 255
        assert far.any()
        assert set(np.unique(crop_labels)) == {1, 255}
        corners = crop[-1, [0, -1]]  # a 40×20 image at most doubled covers 80×40 of the 96×96
        assert corners.tolist() == [[124, 116, 104]] * 2


def test_image_and_labels_stay_together_in_place_and_mirror() -> None:
    image, labels = coordinates(240, 320)
    mirrored = 0
    for seed in range(30):
        crop, crop_labels = random_crop(image, labels, 320, 96, np.random.default_rng(seed))
        red, green = crop[:, :, 0].astype(float), crop[:, :, 1].astype(float)
        rows, columns = red * 240 / 255, green * 320 / 255
        told = (rows // 16) % 8 * 8 + (columns // 16) % 8
        known = crop_labels != 255
        assert (told[known] == crop_labels[known]).mean() > 0.75  # block borders blur
        mirrored += green[0, 0] > green[0, 60]
    assert 5 < mirrored < 25


def test_the_scale_spans_half_to_double() -> None:
    image, labels = coordinates(400, 400)
    spans = []
    for seed in range(200):
        crop, _ = random_crop(image, labels, 400, 96, np.random.default_rng(seed))
        spans.append(np.ptp(crop[:, 48, 0].astype(float)) * 400 / 255 / 96)  # source pixels per crop pixel
    assert 0.48 <= min(spans) < 0.6
    assert 1.7 < max(spans) <= 2.05


def test_one_seed_gives_one_crop() -> None:
    image, labels = coordinates(100, 120)
    first = random_crop(image, labels, 120, 48, np.random.default_rng(3))
    again = random_crop(image, labels, 120, 48, np.random.default_rng(3))
    assert np.array_equal(first[0], again[0]) and np.array_equal(first[1], again[1])


class Rolls:
    """A generator that rolls what it is told: scale 1, the upper left corner, then `rolls`."""

    def __init__(self, *rolls: float) -> None:
        self._rolls = iter(rolls)

    def uniform(self, low: float, high: float) -> float:
        assert (low, high) == (0.5, 2.0)
        return 1.0

    def integers(self, low: int, high: int) -> int:
        return low

    def random(self) -> float:
        return next(self._rolls)


def test_mirror_and_blur_as_rolled() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8)
    labels = np.arange(96 * 96, dtype=np.int64).reshape(96, 96).astype(np.uint8)
    plain, plain_labels = random_crop(noise, labels, 96, 48, Rolls(0.9, 0.9))
    assert np.array_equal(plain, noise[:48, :48]) and np.array_equal(plain_labels, labels[:48, :48])
    mirrored, mirrored_labels = random_crop(noise, labels, 96, 48, Rolls(0.1, 0.9))
    assert np.array_equal(mirrored, noise[:48, 47::-1]) and np.array_equal(mirrored_labels, labels[:48, 47::-1])
    blurred, blurred_labels = random_crop(noise, labels, 96, 48, Rolls(0.9, 0.1, 0.8))
    expected = gaussian_filter(noise[:48, :48].astype(float), (0.8, 0.8, 0), mode="mirror")
    assert np.abs(blurred[4:-4, 4:-4] - expected[4:-4, 4:-4]).max() < 3
    assert np.array_equal(blurred_labels, plain_labels)
