"""Weights of classes against the papers' formulas, worked out by hand, and the pixels that crops are centered on."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from container.data.audit.statistics import ChannelStatistics, PairInfo
from container.data.labels.class_counts import ClassCounts, rare_pixel
from container.data.labels.decoding import DecodedLabels
from container.data.labels.label_maps import LabelMap

# two images of 10 and 6 labeled pixels: class 0 has 8 + 5, class 1 has 2, class 2 has 1, class 3 none
COUNTS = ClassCounts([13, 2, 1, 0], [16, 10, 6, 0])


def test_balanced_weights_are_median_frequencies() -> None:
    # frequencies 13/16, 2/10, 1/6; their median is 1/5
    assert COUNTS.weights("balanced") == pytest.approx([0.2 / (13 / 16), 1, 0.2 * 6, 1.2])


def test_enet_weights_are_the_papers() -> None:
    expected = [1 / math.log(1.02 + share) for share in (13 / 16, 2 / 16, 1 / 16)]
    assert COUNTS.weights("enet") == pytest.approx([*expected, expected[-1]])


def test_nothing_counted_weighs_alike() -> None:
    assert ClassCounts([0, 0], [0, 0]).weights("balanced") == ClassCounts([0, 0], [0, 0]).weights("enet") == [1, 1]


def test_findings_count_the_pixels_of_images_that_have_a_class() -> None:
    findings = ChannelStatistics("train", LabelMap(), 4, 32)
    for labels in ([0] * 8 + [1] * 2 + [255], [0] * 5 + [2]):
        values = np.arange(256)
        meaning = np.where(values < 4, values, 255).astype(np.uint8)
        nothing = np.zeros(256, bool)
        places = np.array([labels], np.uint8)
        findings.add(PairInfo("a", 1, len(labels), DecodedLabels(places, values, meaning, nothing, nothing)))
    assert findings.class_counts == COUNTS


def draw(labels: np.ndarray, counts: ClassCounts | None) -> Counter[int]:
    rng = np.random.default_rng(0)
    drawn: Counter[int] = Counter()
    for _ in range(4000):
        place = rare_pixel(labels, 4, counts, rng)
        assert place is not None
        drawn[int(labels[place])] += 1
    return drawn


def test_a_class_is_drawn_by_its_inverse_frequency_among_those_of_the_image() -> None:
    labels = np.full((6, 7), 255, np.uint8)
    labels[0, :4], labels[3, 3:5] = 0, 1
    drawn = draw(labels, ClassCounts([900, 100, 1, 0], [1000, 1000, 1000, 0]))
    assert set(drawn) == {0, 1}
    assert drawn[1] / drawn[0] == pytest.approx(9, rel=0.15)
    drawn = draw(labels, None)  # 4 pixels and 2
    assert drawn[1] / drawn[0] == pytest.approx(2, rel=0.15)


def test_every_pixel_of_the_class_may_be_the_one() -> None:
    labels = np.zeros((3, 5), np.uint8)
    labels[1, 2] = labels[2, 4] = 1
    rng = np.random.default_rng(0)
    found = {rare_pixel(labels, 2, ClassCounts([10**9, 1], [10**9, 10**9]), rng) for _ in range(40)}
    assert found == {(1, 2), (2, 4)}


def test_an_image_without_labels_has_no_such_pixel() -> None:
    assert rare_pixel(np.full((2, 2), 255, np.uint8), 2, None, np.random.default_rng(0)) is None
