"""Channels: what is missing, unpaired or unreadable is named before anything is trained."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from container.data.sample_decoding import Decoded, decode_sample
from container.data.samples import open_samples
from container.environment import Environment
from container.errors import ClientError
from container.hyperparameters import load
from tests.conftest import JobFactory

JOB = load({"num_classes": 2, "num_training_samples": 1})


def names(root: Path, rng: np.random.Generator | None = None) -> list[str]:
    samples = open_samples(Environment.read(root), "train", JOB)
    return [Path(sample.name).name for sample in samples.epoch(rng, threading.Event())]


def test_pairs_come_in_the_order_of_their_names(make_job: JobFactory) -> None:
    assert names(make_job(train=3)) == ["train-0.jpg", "train-1.jpg", "train-2.jpg"]


def test_shuffling_keeps_every_pair_once(make_job: JobFactory) -> None:
    shuffled = names(make_job(train=8), np.random.default_rng(1))
    assert sorted(shuffled) == [f"train-{number}.jpg" for number in range(8)]
    assert shuffled != sorted(shuffled)


def decode(root: Path, exif_orientation: str = "auto") -> Decoded:
    samples = open_samples(Environment.read(root), "train", JOB)
    return decode_sample(next(iter(samples.epoch(None, threading.Event()))), samples.label_map, 2, exif_orientation)


def test_pair_with_two_sizes_is_rejected_with_both(make_job: JobFactory) -> None:
    root = make_job(train=1)
    Image.new("L", (20, 10)).save(root / "input/data/train_annotation/train-0.png")
    with pytest.raises(ClientError, match=r"train-0\.jpg: the image has 48×40 pixels, but the annotation has 20×10"):
        decode(root)


def test_corrupt_image_is_rejected_with_its_name(make_job: JobFactory) -> None:
    root = make_job(train=1)
    path = root / "input/data/train/train-0.jpg"
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(ClientError, match=r"train-0\.jpg: .*\. Replace or remove it"):
        decode(root)


def photograph(path: Path, orientation: int, size: tuple[int, int] = (48, 32)) -> np.ndarray:
    """Write a PNG that says it is to be rotated; returns its pixels as stored."""
    pixels = np.random.default_rng(1).integers(0, 255, (*size[::-1], 3), np.uint8)
    exif = Image.Exif()
    exif[0x112] = orientation
    Image.fromarray(pixels).save(path, exif=exif)
    return pixels


def pair_with_orientation(
    make_job: JobFactory, orientation: int, annotation: tuple[int, int]
) -> tuple[Path, np.ndarray]:
    """Make a job whose one photograph, 48×32 as stored, has an annotation of that size (width, height)."""
    root = make_job(train=1)
    (root / "input/data/train/train-0.jpg").unlink()
    pixels = photograph(root / "input/data/train/train-0.png", orientation)
    Image.new("L", annotation).save(root / "input/data/train_annotation/train-0.png")
    return root, pixels


def test_image_is_rotated_if_only_then_it_fits(make_job: JobFactory) -> None:
    root, stored = pair_with_orientation(make_job, 6, (32, 48))
    found = decode(root)
    np.testing.assert_array_equal(found.image, np.rot90(stored, -1))  # EXIF 6: to be rotated clockwise
    assert (found.seen.is_rotated, found.seen.is_ambiguous) == (True, False)
    with pytest.raises(ClientError, match="the image has 48×32 pixels, but the annotation has 32×48"):
        decode(root, "ignore")


def test_image_that_fits_as_stored_is_not_rotated(make_job: JobFactory) -> None:
    root, stored = pair_with_orientation(make_job, 6, (48, 32))
    found = decode(root)
    np.testing.assert_array_equal(found.image, stored)
    assert (found.seen.is_rotated, found.seen.is_ambiguous) == (False, False)
    with pytest.raises(ClientError, match="the image has 32×48 pixels, but the annotation has 48×32"):
        decode(root, "apply")


def test_a_photograph_that_fits_either_way_is_turned_on_request(make_job: JobFactory) -> None:
    root, stored = pair_with_orientation(make_job, 3, (48, 32))
    found = decode(root)
    np.testing.assert_array_equal(found.image, stored)
    assert (found.seen.is_rotated, found.seen.is_ambiguous) == (False, True)
    found = decode(root, "apply")
    np.testing.assert_array_equal(found.image, stored[::-1, ::-1])  # EXIF 3: upside down
    assert (found.seen.is_rotated, found.seen.is_ambiguous) == (True, False)
    assert decode(root, "ignore").seen.is_ambiguous is False
