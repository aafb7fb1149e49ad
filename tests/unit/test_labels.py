"""Label maps: what pixel values become, worked out by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from container.data.labels import LabelMap
from container.errors import ClientError


def test_without_a_map_pixels_are_labels_and_255_is_ignored() -> None:
    labels, unnamed = LabelMap().apply(np.array([[0, 1], [2, 255]], np.uint8), num_classes=3)
    assert labels.tolist() == [[0, 1], [2, 255]]
    assert labels.dtype == np.uint8
    assert unnamed == 0


def test_scale_divides_and_floors() -> None:
    labels, _ = LabelMap({"scale": "10"}).apply(np.array([[0, 9, 10, 25, 255]], np.uint8), num_classes=3)
    assert labels.tolist() == [[0, 0, 1, 2, 255]]


def test_keys_are_labels_and_values_are_pixels() -> None:
    # the sample of AWS's page: pixels 0, 5 and 2 become 1, 0 and 2
    label_map = LabelMap({"map": {"0": 5, "1": "0", "2": 2}})
    labels, unnamed = label_map.apply(np.array([[0, 5, 2], [7, 7, 255]], np.uint8), num_classes=3)
    assert labels.tolist() == [[1, 0, 2], [255, 255, 255]]
    assert unnamed == 2


def test_sixteen_bit_pixels_are_mapped() -> None:
    label_map = LabelMap({"map": {"0": 1000, "1": 40000}})
    labels, unnamed = label_map.apply(np.array([[1000, 40000, 3]], np.int32), num_classes=2)
    assert labels.tolist() == [[0, 1, 255]]
    assert unnamed == 1


def test_a_label_that_is_no_class_is_named() -> None:
    with pytest.raises(ClientError, match="pixel value 7 becomes label 7, but num_classes is 3"):
        LabelMap().apply(np.array([[0, 7]], np.uint8), num_classes=3)
    with pytest.raises(ClientError, match="pixel value 300 becomes label 300, but num_classes is 3"):
        LabelMap().apply(np.array([[0, 300]], np.int32), num_classes=3)


@pytest.mark.parametrize(
    "content",
    [{"scale": 0}, {"scale": "x"}, {"map": {"a": 1}}, {"map": {}}, {"map": {"0": 1, "1": 1}}, {}, {"other": 1}],
)
def test_a_map_that_makes_no_sense_is_refused_by_file(tmp_path: Path, content: dict[str, object]) -> None:
    path = tmp_path / "train_label_map.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ClientError, match=r"train_label_map\.json is not valid"):
        LabelMap.read(path)
