"""The likeliest classes of every pixel, whose order is worked out by hand."""

from __future__ import annotations

import io

import numpy as np
import pytest

from container.codecs import probabilities as codec
from container.codecs.probabilities import NpyEncoder


def likeliest(scores: list, count: int) -> np.ndarray:
    """Ask for the `count` likeliest classes of scores (C, H, W), and read the answer as a client does."""
    encoder = NpyEncoder({"top_k": str(count)}, {})
    answer: np.ndarray = np.load(io.BytesIO(b"".join(encoder.encode(np.array(scores, np.float32)))))
    return answer[0]


@pytest.mark.parametrize("band", [1, 2, 2**14])
def test_the_likeliest_class_and_its_probability(monkeypatch: pytest.MonkeyPatch, band: int) -> None:
    monkeypatch.setattr(codec, "_BAND", band)
    scores = [
        [[0.5, 0.25], [0.125, 0.0], [0.25, 0.375]],
        [[0.25, 0.5], [0.125, 0.0], [0.5, 0.25]],
        [[0.25, 0.25], [0.75, 1.0], [0.25, 0.375]],
    ]
    answer = likeliest(scores, 1)
    assert answer["class"].tolist() == [[[0, 1], [2, 2], [1, 0]]]
    assert answer["probability"].tolist() == [[[0.5, 0.5], [0.75, 1.0], [0.5, 0.375]]]


@pytest.mark.parametrize("count", [1, 2])
def test_of_equally_likely_classes_the_lower_comes_first(count: int) -> None:
    answer = likeliest([[[0.25]], [[0.375]], [[0.375]]], count)
    assert answer["class"].ravel().tolist() == [1, 2][:count]


def test_the_last_of_254_classes_is_found() -> None:
    scores = np.zeros((254, 1, 1), np.float32)
    scores[253] = 1
    assert likeliest(scores.tolist(), 1).tolist() == [[[(253, 1.0)]]]
