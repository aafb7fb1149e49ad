"""Label maps: what pixel values become, worked out by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from container.codecs.images import Annotation
from container.data.labels.decoding import UnmappedColorsError
from container.data.labels.label_maps import LabelMap
from container.errors import ClientError


def labels_of(label_map: LabelMap, annotation: Annotation, num_classes: int) -> tuple[list[list[int]], int]:
    reading = label_map.interpret(annotation, num_classes)
    reading.check(num_classes)
    labels = reading.image()
    assert labels.dtype == np.uint8
    return labels.tolist(), reading.ignored


def read(content: dict[str, object], pixels: list[list[int]], num_classes: int) -> tuple[list[list[int]], int]:
    kind = np.uint8 if max(map(max, pixels)) < 256 else np.int32
    return labels_of(LabelMap(content), Annotation(np.array(pixels, kind)), num_classes)


def test_without_a_map_pixels_are_labels_and_255_is_ignored() -> None:
    annotation = Annotation(np.array([[0, 1], [2, 255]], np.uint8))
    assert labels_of(LabelMap(), annotation, num_classes=3) == ([[0, 1], [2, 255]], 0)


def test_scale_divides_and_floors() -> None:
    assert read({"scale": "10"}, [[0, 9, 10, 25, 255]], num_classes=3) == ([[0, 0, 1, 2, 255]], 0)


def test_keys_are_labels_and_values_are_pixels() -> None:
    # the sample of AWS's page: pixels 0, 5 and 2 become 1, 0 and 2
    content: dict[str, object] = {"map": {"0": 5, "1": "0", "2": 2}}
    assert read(content, [[0, 5, 2], [7, 7, 255]], num_classes=3) == ([[1, 0, 2], [255, 255, 255]], 2)


def test_sixteen_bit_pixels_are_mapped() -> None:
    assert read({"map": {"0": 1000, "1": 40000}}, [[1000, 40000, 3]], num_classes=2) == ([[0, 1, 255]], 1)


def test_invalid_label_is_reported() -> None:
    with pytest.raises(
        ClientError, match=r"^pixel value 7 is not a valid class ID .num_classes is 3.\. Increase num_classes, set"
    ):
        labels_of(LabelMap(), Annotation(np.array([[0, 7]], np.uint8)), num_classes=3)
    with pytest.raises(
        ClientError, match=r"^pixel value 300 is not a valid class ID .num_classes is 3.\. Increase num_classes, set"
    ):
        labels_of(LabelMap(), Annotation(np.array([[0, 300]], np.int32)), num_classes=3)


@pytest.mark.parametrize(
    "content",
    [
        {"scale": 0},
        {"scale": "x"},
        {"scale": None},
        {"scale": 1, "map": {"0": 1}},
        {"map": {"a": 1}},
        {"map": {}},
        {"map": {"0": 1, "1": 1}},
        {"map": {"0": 1.5}},
        {"map": {"0": True}},
        {"map": {"0": -1}},
        {"map": {"256": 1}},
        {"map": [0, 1]},
        {"colors": {}},
        {"colors": {"red": 1}},
        {"colors": {"#ff0000": 1, "#FF0000": 0}},
        {"colors": {"#ff0000": 256}},
        {"names": "road"},
        {"names": {"0": None}},
        {},
        {"other": 1},
    ],
)
def test_invalid_map_is_rejected_with_its_path(tmp_path: Path, content: dict[str, object]) -> None:
    path = tmp_path / "train_label_map.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ClientError, match=r"train_label_map\.json is not valid"):
        LabelMap.read(path)


def test_label_map_has_at_most_1_mb(tmp_path: Path) -> None:
    path = tmp_path / "train_label_map.json"
    values = {"map": {"0": list(range(32_768)), "1": list(range(32_768, 65_536))}}
    path.write_text(json.dumps(values))  # all values of 16 bits
    assert LabelMap.read(path).labels[65_535] == 1
    path.write_text('{"scale": 1}'.ljust(2**20))
    assert LabelMap.read(path).scale == 1
    path.write_text('{"scale": 1}'.ljust(2**20 + 1))
    with pytest.raises(ClientError, match=r"^The label map .*train_label_map\.json is larger than 1 MB\. Make sure"):
        LabelMap.read(path)


def test_map_with_255_is_used() -> None:
    assert read({"map": {"0": 0, "1": 255}}, [[0, 255, 7]], num_classes=2) == ([[0, 1, 255]], 1)


@pytest.mark.parametrize(
    ("scale", "num_classes", "label"),
    [(255, 2, 1), (128, 2, 1), (10, 26, 25), (10, 21, 255), (1, 254, 255), (12.5, 21, 20)],
)
def test_a_scale_makes_a_class_of_255_where_there_is_one(scale: float, num_classes: int, label: int) -> None:
    assert read({"scale": scale}, [[255]], num_classes) == ([[label]], 0)


def test_several_pixel_values_may_have_one_label() -> None:
    assert read({"map": {"0": [0, 3], "1": 5}}, [[0, 3, 5]], num_classes=2) == ([[0, 0, 1]], 0)


RGB = Annotation(None, colors=np.array([[[128, 64, 128], [244, 35, 232], [1, 2, 3]]], np.uint8))
PALETTE = np.array([[244, 35, 232], [128, 64, 128], [9, 9, 9]], np.uint8)


def test_colors_become_labels_exactly() -> None:
    label_map = LabelMap({"colors": {"#804080": 0, "#F423E8": "1"}})
    assert labels_of(label_map, RGB, 2) == ([[0, 1, 255]], 1)
    assert labels_of(label_map, Annotation(np.array([[0, 1, 2, 7]], np.uint8), PALETTE), 2) == ([[1, 0, 255, 255]], 2)
    assert label_map.class_colors == {0: (128, 64, 128), 1: (244, 35, 232)}


def test_grey_values_are_colors_too() -> None:
    label_map = LabelMap({"colors": {"#000000": 0, "ffffff": 1, "#555555": 255}})
    assert labels_of(label_map, Annotation(np.array([[0, 255, 85]], np.uint8)), 2) == ([[0, 1, 255]], 0)
    assert labels_of(label_map, Annotation(np.array([[0, 1]], np.uint8), levels=2), 2) == ([[0, 1]], 0)
    assert labels_of(label_map, Annotation(np.array([[0, 1, 3]], np.uint8), levels=4), 2) == ([[0, 255, 1]], 0)
    with pytest.raises(ClientError, match="maps colors, but the annotation is 16-bit gray with values that are not"):
        label_map.interpret(Annotation(np.array([[0, 300]], np.int32)), 2)


def test_more_than_255_colors_are_distinct() -> None:
    colors = {f"#{number:06x}": number % 3 for number in range(1000)}
    picture = np.array([[[0, 0, 255], [0, 1, 0], [0, 3, 231], [0, 3, 232]]], np.uint8)  # 255, 256, 999 and 1000
    assert labels_of(LabelMap({"colors": colors}), Annotation(None, colors=picture), 3) == ([[0, 1, 0, 255]], 1)


def test_colors_without_a_map_are_listed_as_the_map_to_paste() -> None:
    with pytest.raises(UnmappedColorsError) as caught:
        LabelMap().interpret(RGB, 2)
    assert (
        'Put {"colors": {"#010203": 0, "#804080": 1, "#f423e8": 255}}, with the IDs that you mean, into '
        "label_map/<channel>_label_map.json for each of the channels train" in str(caught.value)
    )
    assert caught.value.colors == {0x010203: 1, 0x804080: 1, 0xF423E8: 1}


def test_invalid_label_in_a_map_is_rejected_before_decoding() -> None:
    with pytest.raises(
        ClientError, match=r"contains labels that are not valid class IDs \(num_classes is 2\): 38, 75. The keys must"
    ):
        LabelMap({"map": {"38": 0, "75": 1}}).check(2)
    with pytest.raises(ClientError, match=r'The inverted map is {"map": {"0": 38, "1": 75}}$'):
        LabelMap({"map": {"38": 0, "75": 1}}).check(2)
    with pytest.raises(ClientError, match=r"\): 7. Increase num_classes, or use the label 255 to ignore such pixels$"):
        LabelMap({"colors": {"#000000": 0, "#ffffff": 7}}).check(2)
    with pytest.raises(
        ClientError, match=r"contains names of labels that are not valid class IDs .*: 2. Increase num_classes"
    ):
        LabelMap({"scale": 1, "names": ["a", "b", "c"]}).check(2)
    LabelMap({"map": {"0": 0, "1": 1, "255": 9}, "names": {"0": "a", "255": "void"}}).check(2)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_numbers_are_read_in_every_form_and_files_in_every_encoding(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "train_label_map.json"
    path.write_text('{"map": {"0": "0.0", " 1 ": 2.0, "2": "7"}, "names": {"0": "Straße"}}', encoding)
    label_map = LabelMap.read(path)
    assert label_map.labels == {0: 0, 2: 1, 7: 2}
    assert label_map.names == {0: "Straße"}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"map": {"0": 1, "0": 2}}', "the key '0' occurs twice; for several pixel values of one label, use a list"),
        ("[1]", "must contain a JSON object. Write"),
        ("{", "is not readable JSON"),
        ('{"map": ' + "[" * 100_000, "is not readable JSON"),
        ('{"map": {"38": 0, "40": 0}}', "pixel value 0 is mapped to two labels, 38 and 40 .the keys must be"),
    ],
)
def test_ambiguous_map_file_is_rejected(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "train_label_map.json"
    path.write_text(text)
    with pytest.raises(ClientError, match=f"train_label_map.json .*{reason}"):
        LabelMap.read(path)


@pytest.mark.parametrize(
    "content",
    [{"map": {"0": [0, 1], "1": 2}}, {"map": {"0": 0, "0.0": 1}}, {"map": {"5": [0, 1], "0": 2}}, {"map": {"0": 300}}],
)
def test_a_map_that_turned_round_would_be_none_is_not_suggested(content: dict[str, object]) -> None:
    assert LabelMap(content).inverted(3) is None


def test_a_map_turned_round_keeps_its_names() -> None:
    turned = LabelMap({"map": {"38": 0, "75": 1}, "names": ["a", "b"]}).inverted(2)
    assert turned == {"map": {"0": 38, "1": 75}, "names": {"0": "a", "1": "b"}}
