"""Colors as meaning: the map that is suggested, and what Ground Truth's metadata say together."""

from __future__ import annotations

import json

import numpy as np
import pytest

from container.codecs.images import Annotation
from container.data.labels.color_maps import TRANSPARENT, ColorMap, ColorMaps, read_color_map
from container.data.labels.color_schemes import suggest_color_map
from container.data.labels.label_maps import LabelMap
from container.errors import ClientError


def suggested(colors: dict[int, int], num_classes: int) -> dict[str, int]:
    text = suggest_color_map(colors, num_classes)
    found: dict[str, int] = json.JSONDecoder().raw_decode(text[text.index("{") :])[0]["colors"]
    return found


def test_the_suggestion_numbers_colors_by_how_much_there_is_of_them() -> None:
    assert suggested({0xF423E8: 5, 0x000000: 90, 0x804080: 30}, 3) == {"#000000": 0, "#804080": 1, "#f423e8": 2}
    assert suggested({0x000000: 90, 0xFFFFFF: 10}, 2) == {"#000000": 0, "#ffffff": 1}


def test_the_suggestion_keeps_ids_that_were_saved_as_grey_rgb() -> None:
    assert suggested({0x020202: 90, 0x000000: 30, 0xFFFFFF: 5}, 3) == {"#000000": 0, "#020202": 2, "#ffffff": 255}


def test_the_suggestion_can_be_pasted_when_there_are_more_colors_than_classes() -> None:
    assert suggested({0xFF0000: 9, 0xFF8000: 8, 0xFF8040: 3}, 2) == {"#ff0000": 0, "#ff8000": 1, "#ff8040": 255}


def test_smoothed_edges_come_before_a_map_of_the_frequent_colors_alone() -> None:
    edges = {0x104030 + 0x010203 * number: 1 for number in range(30)}
    text = suggest_color_map({0xFF0000: 900, 0x00FF00: 100, **edges}, 2)
    assert text.startswith("There are 32 or more colors for 2 classes. If the edges are smoothed, or ")
    assert '{"colors": {"#ff0000": 0, "#00ff00": 1}}' in text
    assert "{" not in suggest_color_map({0x104030 + 0x010203 * number: 9 for number in range(80)}, 2)


def color_map(**classes: str) -> ColorMap:
    """Make a map from `c1="car #2ca02c"`."""
    entries = {
        key[1:]: dict(zip(("class-name", "hex-color"), text.split(), strict=True)) for key, text in classes.items()
    }
    found = read_color_map(json.dumps({"internal-color-map": entries}).encode(), "record 3")
    assert found is not None
    return found


def test_maps_that_list_their_images_classes_only_are_united() -> None:
    maps = ColorMaps()
    maps.add(color_map(c0="ground #ffffff", c1="car #2ca02c"), "record 1")
    maps.add(color_map(c0="ground #ffffff", c2="person #1f77b4"), "record 4")
    assert maps.merged.names == {0: "ground", 1: "car", 2: "person"}
    assert maps.merged.colors == {0: (255, 255, 255), 1: (0x2C, 0xA0, 0x2C), 2: (0x1F, 0x77, 0xB4)}


def test_conflicting_color_maps_are_reported() -> None:
    maps = ColorMaps()
    maps.add(color_map(c1="car #2ca02c", c2="bus #111111"), "channel train, record 1")
    with pytest.raises(
        ClientError, match=r"^Class 1 is person in channel train, record 4, but car in channel train, record 1\."
    ):
        maps.add(color_map(c1="person #2ca02c"), "channel train, record 4")
    with pytest.raises(
        ClientError, match=r"^bus is class 3 in channel train, record 7, but class 2 in channel train, record 1\."
    ):
        maps.add(color_map(c3="bus #222222"), "channel train, record 7")
    maps.add(color_map(c1="car #999999"), "channel train, record 9")  # another shade, but the same class
    assert maps.merged.colors[1] == (0x2C, 0xA0, 0x2C)


PALETTE = np.array([[255, 255, 255], [1, 1, 1], [2, 2, 2]], np.uint8)


def test_wrong_indices_are_repaired_by_their_colors() -> None:
    table = color_map(c0="ground #ffffff", c1="car #020202", c2="person #010101").repair(PALETTE)
    assert table[:4].tolist() == [0, 2, 1, 3]


def test_two_classes_of_one_color_keep_their_indices() -> None:
    palette = np.array([[255, 255, 255], [1, 1, 1], [2, 2, 2], [2, 2, 2]], np.uint8)
    table = color_map(c0="ground #ffffff", c1="car #020202", c2="van #020202").repair(palette)
    assert table[:4].tolist() == [0, 1, 2, 3]


def test_rgb_masks_follow_ground_truths_colors() -> None:
    picture = np.array([[[255, 255, 255], [2, 2, 2], [9, 9, 9]]], np.uint8)
    reading = LabelMap().interpret(
        Annotation(None, colors=picture), 2, color_map(c0="ground #ffffff", c1="car #020202")
    )
    assert (reading.image().tolist(), reading.ignored) == ([[0, 1, 255]], 1)
    shared = color_map(c0="ground #ffffff", c1="car #020202", c2="van #020202")
    with pytest.raises(ClientError, match=r"The classes car \(1\) and van \(2\) have the same color"):
        LabelMap().interpret(Annotation(None, colors=picture), 3, shared)


def test_a_label_map_goes_on_from_ground_truths_ids() -> None:
    label_map = LabelMap({"map": {"0": [0, 2], "1": 1}})
    picture = np.array([[[255, 255, 255], [1, 1, 1], [2, 2, 2]]], np.uint8)
    known = color_map(c0="ground #ffffff", c1="car #010101", c2="person #020202")
    assert label_map.interpret(Annotation(None, colors=picture), 2, known).image().tolist() == [[0, 1, 0]]


@pytest.mark.parametrize(
    "record", [b"{", b"[1]", b'{"internal-color-map": {"0": {"class-name": "a"}}}', b"[" * 100_000]
)
def test_unreadable_metadata_is_rejected(record: bytes) -> None:
    with pytest.raises(ClientError, match=r"^record 3: the metadata of the annotation cannot be read"):
        read_color_map(record, "record 3")


def test_metadata_record_has_at_most_1_mb() -> None:
    record = b'{"internal-color-map": {"0": {"class-name": "a", "hex-color": "#ffffff"}}}'
    assert read_color_map(record.ljust(2**20), "record 3") == read_color_map(record, "record 3") is not None
    with pytest.raises(ClientError, match=r"^record 3: the metadata has 1048577 bytes\. The limit is 1048576 bytes"):
        read_color_map(record.ljust(2**20 + 1), "record 3")


def test_annotations_that_are_all_transparent_get_no_map_that_ignores_all_pixels() -> None:
    advice = suggest_color_map({TRANSPARENT: 9}, 21)
    assert "All pixels are transparent" in advice and "{" not in advice
