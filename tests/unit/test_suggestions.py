"""Label maps that the audit suggests: each of them, used as the error says, gives the labels that were painted."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from container.data.sample_decoding import decode_sample
from container.data.samples import open_samples
from container.environment import Environment
from container.errors import ClientError
from container.hyperparameters import load
from tests.conftest import JobFactory
from tests.unit.data.audit.test_audit import CHANNELS, audit, label_maps, refusal, repaint, report, warnings

SHAPE = (40, 48)
Painter = Callable[[int], Image.Image]


def stripes(*ids: int) -> np.ndarray:
    """Return class IDs in vertical stripes, the first of them wider than the others."""
    pixels = np.full(SHAPE, ids[0], np.uint8)
    for number, value in enumerate(ids[1:], 1):
        pixels[:, 48 - 6 * number : 54 - 6 * number] = value
    return pixels


def job(make_job: JobFactory, painter: Painter, num_classes: int, **changes: str) -> Path:
    """Lay out a job whose annotations are the painter's, by number."""
    root = make_job(train=4, validation=4, num_classes=str(num_classes), **changes)
    for channel in CHANNELS:
        for number in range(4):
            painter(number).save(root / f"input/data/{channel}_annotation/{channel}-{number}.png")
    return root


def suggestion(error: ClientError) -> dict[str, Any]:
    """Return the label map in the error's message."""
    text = error.message
    found = re.search(r'\{"(colors|map|scale)"', text)
    assert found, text
    content: dict[str, Any] = json.JSONDecoder().raw_decode(text[found.start() :])[0]
    return content


def labels_of(root: Path, channel: str = "train") -> list[np.ndarray]:
    """Read the channel's labels as training does."""
    environment = Environment.read(root)
    settings = load(environment.hyperparameters)
    samples = open_samples(environment, channel, settings)
    return [decode_sample(each, samples.label_map, settings.num_classes).labels for each in samples.listed() or ()]


def channel_image(ids: np.ndarray, channel: int) -> Image.Image:
    pixels = np.zeros((*SHAPE, 4 if channel == 3 else 3), np.uint8)
    pixels[..., channel] = ids
    return Image.fromarray(pixels)


def gray_rgb(ids: np.ndarray) -> Image.Image:
    return Image.fromarray(np.repeat(ids[:, :, None], 3, 2))


# The first 21 colors of Pascal VOC that are used here, from the development kit's documentation, and its border
VOC = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 5: (128, 0, 128), 15: (192, 128, 128), 255: (224, 224, 192)}


def voc(ids: np.ndarray) -> Image.Image:
    table = np.zeros((256, 3), np.uint8)
    table[list(VOC)] = list(VOC.values())
    return Image.fromarray(table[ids])


TOWN = [(7, 10, 4, 11), (7, 10, 4, 1), (7, 4), (7, 12, 10)]
PASCAL = [(0, 15, 255), (0, 1, 255), (0, 2, 5, 255), (0, 15)]


@pytest.mark.parametrize("channel", [0, 1, 2])
def test_ids_in_one_channel_keep_their_numbers(make_job: JobFactory, channel: int) -> None:
    root = job(make_job, lambda number: channel_image(stripes(*TOWN[number]), channel), 13)
    error = refusal(root)
    assert f"The {('red', 'green', 'blue')[channel]} channel contains class IDs" in error.message
    label_maps(root, suggestion(error))
    assert audit(root)["errors"] == []
    assert all(np.array_equal(found, stripes(*ids)) for found, ids in zip(labels_of(root), TOWN, strict=True))


def test_ids_in_the_alpha_channel_are_named_with_the_command_that_saves_them(make_job: JobFactory) -> None:
    root = job(make_job, lambda number: channel_image(stripes(*TOWN[number]), 3), 13)
    error = refusal(root)
    assert 'The alpha channel contains the class IDs. Save it as a grayscale PNG: Image.open(path).getchannel("A")' in (
        error.message
    )
    for path in (root / "input/data").glob("*_annotation/*.png"):
        Image.open(path).getchannel("A").save(path)
    assert audit(root)["errors"] == []
    assert all(np.array_equal(found, stripes(*ids)) for found, ids in zip(labels_of(root), TOWN, strict=True))


def test_ids_beyond_num_classes_keep_their_numbers(make_job: JobFactory) -> None:
    root = job(make_job, lambda number: gray_rgb(stripes(0, 3, 1, 2)), 3)
    error = refusal(root)
    assert "All three channels contain the same class IDs" in error.message
    assert "num_classes is 3: set it to 4" in error.message
    content = suggestion(error)
    root = job(make_job, lambda number: gray_rgb(stripes(0, 3, 1, 2)), 4)
    label_maps(root, content)
    assert audit(root)["errors"] == []
    assert np.array_equal(labels_of(root)[0], stripes(0, 3, 1, 2))


def test_the_colors_of_pascal_voc_get_its_ids(make_job: JobFactory) -> None:
    root = job(make_job, lambda number: voc(stripes(*PASCAL[number])), 21)
    error = refusal(root)
    assert "The colors are those of Pascal VOC" in error.message
    label_maps(root, suggestion(error))
    assert audit(root)["errors"] == []
    assert all(np.array_equal(found, stripes(*ids)) for found, ids in zip(labels_of(root), PASCAL, strict=True))


def test_border_color_of_pascal_voc_is_ignored_for_any_num_classes(make_job: JobFactory) -> None:
    root = job(make_job, lambda number: voc(stripes(0, 15, 255, 255, 255)), 2)
    assert suggestion(refusal(root)) == {"colors": {"#000000": 0, "#c08080": 1, "#e0e0c0": 255}}


def transparent(ids: np.ndarray, mode: str) -> Image.Image:
    """Return IDs 1 and 2, and transparent pixels for 0, as GDAL writes tiles."""
    alpha = np.where(ids > 0, 255, 0).astype(np.uint8)
    planes = [ids, alpha] if mode == "LA" else [ids, ids, ids, alpha]
    return Image.fromarray(np.dstack(planes))


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_transparent_pixels_can_be_ignored(make_job: JobFactory, mode: str) -> None:
    root = job(make_job, lambda number: transparent(stripes(1, 0, 2), mode), 3)
    error = refusal(root)
    assert "(255 ignores the transparent pixels)" in error.message
    label_maps(root, suggestion(error))
    found = audit(root)
    assert not [fault for fault in found["warnings"] if fault["kind"] == "notes"]
    assert found["channels"]["train"]["pixel_values"]["transparent"] == 4 * 40 * 6
    ids = stripes(1, 0, 2)
    assert np.array_equal(labels_of(root)[0], np.where(ids == 0, 255, ids))


def test_white_on_transparent_gives_two_classes(make_job: JobFactory) -> None:
    def painter(number: int) -> Image.Image:
        pixels = np.full((*SHAPE, 4), 255, np.uint8)
        pixels[..., 3] = np.where(stripes(0, 1), 255, 0)
        return Image.fromarray(pixels)

    root = job(make_job, painter, 2)
    label_maps(root, suggestion(refusal(root)))
    assert np.array_equal(labels_of(root)[0], stripes(0, 1))


def test_a_transparent_background_is_a_class_where_one_is_missing(make_job: JobFactory) -> None:
    def painter(number: int) -> Image.Image:
        image = voc(stripes(0, 15, 15, 2)).convert("RGBA")
        image.putalpha(Image.fromarray(np.where(stripes(0, 15, 15, 2), 255, 0).astype(np.uint8)))
        return image

    root = job(make_job, painter, 3)
    label_maps(root, suggestion(refusal(root)))
    assert np.array_equal(labels_of(root)[0], stripes(0, 1, 1, 2))


def test_transparent_pixels_with_a_color_are_reported(make_job: JobFactory) -> None:
    root = job(make_job, lambda number: transparent(stripes(1, 0, 2), "LA"), 3)
    label_maps(root, {"colors": {"#000000": 0, "#010101": 1, "#020202": 2}})
    assert '"transparent": 255' in warnings(root)["notes channel train"]["details"][0]


def test_instance_colors_are_named_and_get_no_label_map(make_job: JobFactory) -> None:
    rng = np.random.default_rng(0)
    root = job(make_job, lambda number: Image.fromarray(rng.integers(1, 255, (6, 3), np.uint8)[stripes(*range(6))]), 4)
    error = refusal(root)
    assert "the colors are instance or segment IDs, as in COCO panoptic" in error.message
    assert "{" not in str(error)


def test_the_encoding_of_full_ade20k_is_named(make_job: JobFactory) -> None:
    def painter(number: int) -> Image.Image:  # instances are numbered from 1 in each image: images share colors
        classes = [(2978, 1), (2978, 2), (3055, 3), (312, 4), (165, 5 + number)]
        table = [(label // 256 * 10, label % 256, instance) for label, instance in classes]
        return Image.fromarray(np.array(table, np.uint8)[stripes(*range(5))])

    error = refusal(job(make_job, painter, 150))
    assert "class index is red / 10 × 256 + green, and blue is the instance" in error.message
    assert "{" not in str(error)


def test_classes_in_red_with_instances_in_the_others_are_named(make_job: JobFactory) -> None:
    def painter(number: int) -> Image.Image:
        rng = np.random.default_rng(number)
        table = np.array([(tag, *rng.integers(0, 255, 2)) for tag in (7, 10, 10, 10, 4)], np.uint8)
        return Image.fromarray(table[stripes(*range(5))])

    root = job(make_job, painter, 13)
    assert 'Image.open(path).getchannel("R").save(path)' in refusal(root).message
    for path in (root / "input/data").glob("*_annotation/*.png"):
        Image.open(path).getchannel("R").save(path)
    assert audit(root)["errors"] == []
    assert set(np.unique(labels_of(root)[0])) == {4, 7, 10}


def swapped(image: Image.Image) -> Image.Image:
    """Save and load with OpenCV as if the array were BGR."""
    _, data = cv2.imencode(".png", np.asarray(image))
    return Image.fromarray(cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB))


COLORS = {"#000000": 0, "#800000": 1, "#008000": 2}


def painted(number: int) -> Image.Image:
    return voc(stripes(0, 1, 2))


def test_exchanged_red_and_blue_is_an_error_whose_map_works(make_job: JobFactory) -> None:
    root = job(make_job, lambda number: swapped(painted(number)), 3)
    label_maps(root, {"colors": COLORS, "names": ["sky", "road", "tree"]})
    error = refusal(root)
    assert error.message.startswith(
        "channel train: red and blue are exchanged in 4 annotations. They have #000080, but "
        f"{root}/input/data/label_map/train_label_map.json contains #800000."
    )
    assert report(root)["channels"]["train"]["pixel_values"]["#000080"] == 4 * 40 * 6
    content = suggestion(error)
    assert content["names"] == {"0": "sky", "1": "road", "2": "tree"}
    for channel in CHANNELS:
        (root / f"input/data/label_map/{channel}_label_map.json").write_text(json.dumps(content))
    assert audit(root)["errors"] == []
    assert np.array_equal(labels_of(root)[0], stripes(0, 1, 2))


def test_some_annotations_with_red_and_blue_exchanged_are_listed(make_job: JobFactory) -> None:
    root = job(make_job, lambda number: swapped(painted(number)) if number == 2 else painted(number), 3)
    label_maps(root, {"colors": COLORS})
    fault = warnings(root)["exchanged channel train"]
    assert fault["details"] == [f"{root}/input/data/train/train-2.jpg"]
    assert "#000080 (not #800000)" in fault["message"]


def test_a_color_that_others_show_to_be_another_class_is_not_an_exchange(make_job: JobFactory) -> None:
    table = np.array([(0, 0, 0), (128, 0, 0), (0, 0, 128)], np.uint8)  # blue is a class that the map leaves out
    ids = [(0, 1), (0, 1, 2), (0, 2), (0, 2)]
    root = job(make_job, lambda number: Image.fromarray(table[stripes(*ids[number])]), 2)
    label_maps(root, {"colors": {"#000000": 0, "#800000": 1}})
    found = warnings(root)
    assert not [name for name in found if name.startswith("exchanged")]
    assert "does not contain #000080 (" in found["unnamed channel train"]["message"]


def test_zero_as_no_data_is_among_the_fixes(make_job: JobFactory) -> None:
    ids = (1, 0, 2, 3, 4, 5, 7)
    root = job(make_job, lambda number: Image.fromarray(stripes(*ids)), 7)
    error = refusal(root)
    assert 'If 0 means "no data"' in error.message
    assert "If 0 is a class, set num_classes to 8" in error.message
    label_maps(root, suggestion(error))
    assert audit(root)["errors"] == []
    painted_ids = stripes(*ids).astype(int)
    assert np.array_equal(labels_of(root)[0], np.where(painted_ids == 0, 255, painted_ids - 1))


def test_ids_that_begin_at_one_keep_their_order_though_some_are_missing(make_job: JobFactory) -> None:
    root = job(make_job, lambda number: Image.fromarray(stripes(1, 2, 7)), 7)
    error = refusal(root)
    assert "If class IDs start at 1" in error.message
    label_maps(root, suggestion(error))
    assert np.array_equal(labels_of(root)[0], stripes(0, 1, 6))


def test_label_ids_of_cityscapes_get_their_train_ids(make_job: JobFactory) -> None:
    root = job(make_job, lambda number: Image.fromarray(stripes(7, 1, 8, 26, 33, 3)), 19)
    error = refusal(root)
    label_maps(root, suggestion(error))
    assert audit(root)["errors"] == []
    # https://github.com/mcordts/cityscapesScripts: road is 7 and 0, sidewalk 8 and 1, car 26 and 13, bicycle 33 and 18
    table = np.full(256, 255)
    table[[7, 8, 26, 33]] = [0, 1, 13, 18]
    assert np.array_equal(labels_of(root)[0], table[stripes(7, 1, 8, 26, 33, 3)])


@pytest.mark.parametrize(
    ("values", "num_classes", "classes"),
    [
        ([0, 1001, 1002, 2001], 3, [0, 1, 1, 2]),  # KITTI-MOTS
        ([7, 26000, 26001, 24000], 34, [7, 26, 26, 24]),  # Cityscapes
        ([512, 513, 1024, 1025], 5, [2, 2, 4, 4]),  # Mapillary
        ([256, 257, 512, 513], 3, [1, 1, 2, 2]),
    ],
)
def test_sixteen_bit_ids_of_class_and_instance_are_divided(
    make_job: JobFactory, values: list[int], num_classes: int, classes: list[int]
) -> None:
    places = stripes(*range(len(values)))
    root = job(make_job, lambda number: Image.fromarray(np.array(values, np.uint16)[places]), num_classes)
    error = refusal(root)
    assert "These values look like class × " in error.message
    label_maps(root, suggestion(error))
    assert audit(root)["errors"] == []
    assert np.array_equal(labels_of(root)[0], np.array(classes)[places])


def soft(number: int) -> Image.Image:
    """Return a disk with a smooth edge, as scaling leaves it."""
    y, x = np.mgrid[:40, :48]
    return Image.fromarray((255 / (1 + np.exp(np.hypot(y - 20, x - 24) - 12))).round().astype(np.uint8))


@pytest.mark.parametrize("scale", [128, 255])
def test_values_between_the_multiples_of_a_scale_are_counted(make_job: JobFactory, scale: int) -> None:
    root = job(make_job, soft, 2)
    label_maps(root, {"scale": scale})
    message = warnings(root)["scale channel train"]["message"]
    assert f"are not multiples of the scale {scale} in " in message
    assert "export the annotations again without anti-aliasing" in message


@pytest.mark.parametrize(
    ("scale", "values", "num_classes"),
    [(128, (0, 255), 2), (12.5, (0, 13, 25, 38), 4), (10, (0, 10, 20, 255), 3), (85, (0, 85, 170, 255), 4)],
)
def test_a_scale_that_fits_gives_no_warning(
    make_job: JobFactory, scale: float, values: tuple[int, ...], num_classes: int
) -> None:
    root = job(make_job, lambda number: Image.fromarray(stripes(*values)), num_classes)
    label_maps(root, {"scale": scale})
    assert not [name for name in warnings(root) if name.startswith("scale ")]


def test_smoothed_edges_under_a_map_are_named(make_job: JobFactory) -> None:
    root = job(make_job, soft, 2)
    label_maps(root, {"map": {"0": 0, "1": 255}})
    assert "If edges were smoothed" in warnings(root)["unnamed channel train"]["message"]


@pytest.mark.parametrize("num_classes", [3, 21])
def test_a_mask_that_was_a_jpeg_gets_the_reason_before_any_map(
    make_job: JobFactory, tmp_path: Path, num_classes: int
) -> None:
    def painter(number: int) -> Image.Image:
        y, x = np.mgrid[:40, :48]
        ids = (np.hypot(y - 20, x - 24) < 12) * 1 + (np.hypot(y - 8, x - 8) < 6) * 2
        voc(ids).save(tmp_path / "mask.jpg", quality=75)
        return Image.open(tmp_path / "mask.jpg")

    message = refusal(job(make_job, painter, num_classes)).message
    assert "or the mask was a JPEG, export it again as a PNG of class IDs" in message
    assert len(message) < 1200


def test_partial_alpha_reads_the_color_itself(make_job: JobFactory) -> None:
    def painter(number: int) -> Image.Image:
        image = painted(number).convert("RGBA")
        image.putalpha(Image.fromarray(np.where(stripes(0, 1, 2) == 1, 128, 255).astype(np.uint8)))
        return image

    root = job(make_job, painter, 3)
    label_maps(root, {"colors": COLORS})
    assert audit(root)["errors"] == []
    assert np.array_equal(labels_of(root)[0], stripes(0, 1, 2))


def test_unknown_colors_are_listed_by_value_in_log_and_report(
    make_job: JobFactory, caplog: pytest.LogCaptureFixture
) -> None:
    root = job(make_job, painted, 3)
    label_maps(root, {"colors": {"#000000": 0, "#008000": 2}})
    with caplog.at_level("WARNING"):
        found = audit(root)
    assert found["channels"]["train"]["pixel_values"] == {
        "#000000": 4 * 40 * 36,
        "#800000": 4 * 40 * 6,
        "#008000": 4 * 40 * 6,
    }
    assert "does not contain #800000 (12.5%, ignored)" in caplog.text


def test_the_repaint_of_one_channel_alone_keeps_the_suggestion_for_all(make_job: JobFactory) -> None:
    root = job(make_job, lambda number: channel_image(stripes(*TOWN[number]), 0), 13)
    repaint(root, "validation", lambda pixels: np.where(pixels == 7, 9, pixels).astype(np.uint8))
    entries = suggestion(refusal(root))["colors"]
    assert entries["#090000"] == 9
    assert entries["#070000"] == 7


@pytest.mark.parametrize("value", [128, 254, 1000, 65535])
def test_one_value_for_no_data_can_be_ignored(make_job: JobFactory, value: int) -> None:
    def paint(number: int) -> Image.Image:
        return Image.fromarray(np.where(stripes(0, 1, 2) == 2, value, stripes(0, 1, 2)).astype(np.uint16))

    root = job(make_job, paint, 2)
    error = refusal(root)
    assert f". To ignore {value}, put" in error.message
    label_maps(root, suggestion(error))
    audit(root)
    expected = np.where(stripes(0, 1, 2) == 2, 255, stripes(0, 1, 2))
    assert all(np.array_equal(labels, expected) for labels in labels_of(root))
