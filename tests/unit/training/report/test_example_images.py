"""Which images are shown, and where their errors lie."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from container.training.report.content import Borders
from container.training.report.example_images import ExampleImages, find_errors

PHOTOGRAPH = np.zeros((20, 20, 3), np.uint8)


def halves() -> np.ndarray:
    """20×20 pixels: class 0 left, class 1 right of column 10."""
    labels = np.zeros((20, 20), np.uint8)
    labels[:, 10:] = 1
    return labels


def add(gallery: ExampleImages, name: str, wrong_rows: int) -> None:
    """Add an image whose first rows are predicted as the other class."""
    labels = halves()
    prediction = labels.copy()
    prediction[:wrong_rows] ^= 1
    gallery.add(name, PHOTOGRAPH, labels, prediction)


def test_errors_are_grouped_by_distance_from_a_border() -> None:
    labels = halves()
    labels[0, 0] = 255
    prediction = labels.copy()
    prediction[10, 9] = 1  # at the border
    prediction[10, 6] = 1  # 4 pixels from column 10: inside
    prediction[10, 7] = 1  # 3 pixels from it
    prediction[0, 0] = 1  # not labeled
    errors, borders = find_errors(labels, prediction, 2)
    assert errors[10, 6:11].tolist() == [2, 1, 0, 1, 0]
    assert errors[0, 0] == 3
    # columns 7 to 12 of all rows, and the 16 pixels within 3 of the ignored corner, itself aside
    assert borders == Borders(near=6 * 20 + 15, near_wrong=2, inside=400 - 1 - 135, inside_wrong=1)


def test_worst_median_and_best_are_shown_once_each() -> None:
    gallery = ExampleImages(2)
    for number in range(19):
        add(gallery, f"image {number}", number)
    scored = gallery.scored("19 images", np.zeros((2, 2), np.int64), 19)
    assert [each.name for each in scored.worst] == [f"image {number}" for number in (18, 17, 16, 15, 14, 13)]
    assert {each.name for each in scored.median} == {"image 9", "image 8", "image 10"}
    assert [each.name for each in scored.best] == ["image 0", "image 1", "image 2"]
    # 5 rows of 20 wrong: of each class 50 pixels are missed, 50 taken from the other; IoU 150 / 250
    assert gallery.scores["image 5"] == 0.6
    assert scored.best[0].wrong == 0


def test_few_images_are_not_shown_twice() -> None:
    for count, expected in ((0, []), (1, [1]), (2, [1, 1]), (4, [2, 1, 1]), (5, [2, 2, 1])):
        gallery = ExampleImages(2)
        for number in range(count):
            add(gallery, str(number), number)
        scored = gallery.scored("", np.zeros((2, 2), np.int64), count)
        groups = [[each.name for each in group] for group in (scored.worst, scored.median, scored.best)]
        assert [len(group) for group in groups if group] == expected
        assert sorted(name for group in groups for name in group) == [str(number) for number in range(count)]


def test_an_image_without_labels_is_no_example() -> None:
    gallery = ExampleImages(2)
    gallery.add("empty", PHOTOGRAPH, np.full((20, 20), 255, np.uint8), halves())
    assert gallery.scores == {} and gallery.scored("", np.zeros((2, 2)), 1).worst == []


def test_images_of_one_score_and_of_one_name_are_no_fault() -> None:
    gallery = ExampleImages(2)
    for _ in range(50):
        add(gallery, "same", 3)
    assert len(gallery.scored("", np.zeros((2, 2)), 50).worst) == 6


def test_names_do_not_contain_the_root_directory() -> None:
    gallery = ExampleImages(2, Path("/opt/ml/input/data"))
    add(gallery, "/opt/ml/input/data/validation/a/b.jpg", 1)
    add(gallery, "channel validation, record 7", 1)
    assert list(gallery.scores) == ["validation/a/b.jpg", "channel validation, record 7"]


def test_memory_of_example_images_is_bounded() -> None:
    gallery = ExampleImages(2)
    labels = np.zeros((1200, 900), np.uint8)
    photograph = np.zeros((1200, 900, 3), np.uint8)
    for number in range(60):
        gallery.add(str(number), photograph, labels, labels)
    kept = [entry[2] for heap in (gallery._worst, gallery._best, gallery._sample) for entry in heap]
    assert len(kept) == 6 + 3 + 32
    assert kept[0].image.shape == (360, 270, 3) and kept[0].labels.shape == (360, 270)
