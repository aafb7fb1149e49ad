"""The synthetic data set of the benchmarks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.support.synthetic_data import NUM_CLASSES, write_data_set


def test_rare_class_has_half_a_percent_of_the_pixels(tmp_path: Path) -> None:
    write_data_set(tmp_path, train=30, validation=2)
    labels = [np.asarray(Image.open(path)) for path in sorted((tmp_path / "train_annotation").iterdir())]
    shares = np.bincount(np.stack(labels).ravel(), minlength=NUM_CLASSES) / np.stack(labels).size
    assert len(shares) == NUM_CLASSES and shares[3] == pytest.approx(0.005, abs=0.0007)
    assert all((each == 3).any() for each in labels)
    assert {path.stem for path in (tmp_path / "train").iterdir()} == {str(number) for number in range(30)}
