"""Conversion of label formats and data sets to channels: small files whose masks were worked out by hand."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import ExifTags, Image
from pycocotools import mask as coco

from container.arrays import Array
from local_test import convert
from local_test.formats.label_studio import decode_brush
from local_test.formats.split import choose_validation
from tests.conftest import PROGRAM

SIZE = (4, 6)  # height, width
SQUARE = [1, 1, 4, 1, 4, 3, 1, 3]  # columns 1 to 3 of rows 1 and 2
ROAD = [
    [0, 0, 0, 0, 0, 0],
    [0, 1, 1, 1, 0, 0],
    [0, 1, 1, 1, 0, 0],
    [0, 0, 0, 0, 0, 0],
]
ROAD_AND_CAR = [
    [0, 0, 0, 0, 0, 0],
    [0, 1, 1, 2, 2, 0],
    [0, 1, 1, 2, 2, 0],
    [0, 0, 0, 0, 0, 0],
]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    save(tmp_path / "images/a.png", np.zeros((*SIZE, 3), np.uint8))
    return tmp_path / "images"


def save(path: Path, pixels: Array) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["convert", *map(str, arguments)])
    convert.main()


def masks(data: Path, channel: str = "train") -> dict[str, list[list[int]]]:
    """The annotations of a channel by name, whose images must be there too."""
    folder = data / f"{channel}_annotation"
    found = {
        path.relative_to(folder).as_posix(): np.asarray(Image.open(path)).tolist() for path in folder.rglob("*.png")
    }
    names = {path.relative_to(data / channel).with_suffix(".png").as_posix() for path in (data / channel).rglob("*.*")}
    assert names == found.keys()
    return found


def label_map(data: Path, channel: str = "train") -> Any:
    return json.loads((data / f"label_map/{channel}_label_map.json").read_text("utf-8"))


def write(path: Path, content: object) -> Path:
    path.write_text(json.dumps(content), "utf-8")
    return path


def coco_file(folder: Path, segmentations: list[tuple[int, Any]], name: str = "a.png") -> Path:
    annotations = [
        {"id": number, "image_id": 7, "category_id": category, "segmentation": segmentation}
        for number, (category, segmentation) in enumerate(segmentations)
    ]
    return write(
        folder / "coco.json",
        {
            "images": [{"id": 7, "file_name": name, "height": SIZE[0], "width": SIZE[1]}],
            "annotations": annotations,
            "categories": [{"id": 90, "name": "car"}, {"id": 3, "name": "road"}],
        },
    )


RUNS = [5, 2, 2, 2, 2, 2, 9]  # column by column: the pixels of SQUARE


@pytest.mark.parametrize(
    "segmentation",
    [
        [SQUARE],
        {"size": list(SIZE), "counts": RUNS},
        {"size": list(SIZE), "counts": coco.encode(np.asfortranarray(ROAD, np.uint8))["counts"].decode()},
    ],
    ids=["polygon", "RLE", "compressed RLE"],
)
def test_coco_annotations_become_a_mask(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, images: Path, segmentation: Any
) -> None:
    run(monkeypatch, "coco", coco_file(tmp_path, [(3, segmentation)]), images, tmp_path / "data")
    assert masks(tmp_path / "data") == {"a.png": ROAD}
    assert label_map(tmp_path / "data") == {"scale": 1, "names": {"0": "background", "1": "road", "2": "car"}}


def test_the_later_annotation_wins_and_is_reported(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    boxes = coco_file(tmp_path, [(3, [SQUARE]), (90, [[3, 1, 5, 1, 5, 3, 3, 3]]), (3, None)])
    run(monkeypatch, "coco", boxes, images, tmp_path / "data")
    assert masks(tmp_path / "data") == {"a.png": ROAD_AND_CAR}
    assert capsys.readouterr().out.splitlines() == [
        "num_classes=3",
        "train: 1 pairs",
        "Skipped 1 annotations without a segmentation (bounding boxes, for example).",
        "2 pixels of 1 images have annotations of several classes. They have the class of the last annotation.",
    ]


def test_a_large_polygon_agrees_with_opencv(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    save(tmp_path / "images/a.png", np.zeros((200, 300, 3), np.uint8))
    points = np.array([[20.5, 10.2], [280, 60], [200.7, 190], [90, 120.3], [30, 180]])
    content = json.loads(coco_file(tmp_path, [(3, [points.ravel().tolist()])]).read_text())
    content["images"][0] |= {"height": 200, "width": 300}
    run(monkeypatch, "coco", write(tmp_path / "c.json", content), tmp_path / "images", tmp_path / "data")
    expected = np.zeros((200, 300), np.uint8)
    cv2.fillPoly(expected, [np.round(points).astype(np.int32)], (1,))
    mask = np.array(masks(tmp_path / "data")["a.png"])
    assert (mask & expected).sum() / (mask | expected).sum() > 0.98


def test_labelme_shapes_become_a_mask(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, images: Path) -> None:
    part = io.BytesIO()
    Image.fromarray(np.ones((2, 2), bool)).save(part, "PNG")
    shapes = [
        {"label": "road", "shape_type": "polygon", "points": np.reshape(SQUARE, (4, 2)).tolist()},
        {
            "label": "car",
            "shape_type": "mask",
            "points": [[3, 1], [4, 2]],
            "mask": base64.b64encode(part.getvalue()).decode(),
        },
        {"label": "__ignore__", "shape_type": "rectangle", "points": [[6, 4], [5, 3]]},
        {"label": "car", "shape_type": "line", "points": [[0, 0], [5, 0]]},
    ]
    content = {"shapes": shapes, "imagePath": "C:\\photos\\a.png", "imageHeight": 4, "imageWidth": 6, "imageData": None}
    write(images / "a.json", content)
    run(monkeypatch, "labelme", images, tmp_path / "data")
    expected = np.where(np.array(ROAD_AND_CAR) > 0, 3 - np.array(ROAD_AND_CAR), 0)  # car is class 1: by name
    expected[3, 5] = 255
    assert masks(tmp_path / "data") == {"a.png": expected.tolist()}
    assert label_map(tmp_path / "data")["names"] == {"0": "background", "1": "car", "2": "road"}


def test_cvat_shapes_are_drawn_by_z_order(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, images: Path) -> None:
    file = tmp_path / "annotations.xml"
    file.write_text(
        """<?xml version="1.0" encoding="utf-8"?><annotations><version>1.1</version><meta><task><labels>
        <label><name>road</name></label><label><name>car</name></label></labels></task></meta>
        <image id="0" name="a.png" width="6" height="4">
        <mask label="car" rle="0, 2, 1, 1" left="3" top="1" width="2" height="2" z_order="2"/>
        <polygon label="road" points="1.0,1.0;4.0,1.0;4.0,3.0;1.0,3.0" z_order="0"/>
        <box label="car" xtl="4" ytl="2" xbr="5" ybr="3" z_order="1"/>
        <polyline label="road" points="0,0;5,0" z_order="0"/>
        </image></annotations>""",
        "utf-8",
    )
    run(monkeypatch, "cvat", file, images, tmp_path / "data")
    expected = [[0, 0, 0, 0, 0, 0], [0, 1, 1, 2, 2, 0], [0, 1, 1, 1, 2, 0], [0, 0, 0, 0, 0, 0]]
    assert masks(tmp_path / "data") == {"a.png": expected}


def test_an_xml_bomb_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, images: Path) -> None:
    entities = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 12))
    (tmp_path / "a.xml").write_text(
        f'<!DOCTYPE a [<!ENTITY e0 "{"x" * 100}">{entities}]><annotations><meta>&e11;</meta></annotations>', "utf-8"
    )
    with pytest.raises(SystemExit, match="not readable as XML"):
        run(monkeypatch, "cvat", tmp_path / "a.xml", images, tmp_path / "data")


# 24 RGBA pixels in 8 bits: run sizes of 1, 4, 8, and 16 bits. Written by hand, bit by bit.
BRUSH = (
    f"{96:032b}" "00111" "0000" "0011" "0111" "1111"
    # 7 transparent pixels (28 values), 3 opaque ones (12), 3 transparent (12), 3 opaque (12), 8 transparent (32)
    + "".join(f"1{'10'}{length - 1:08b}{value:08b}" for length, value in [(28, 0), (12, 255), (12, 0), (12, 255)])
    # literals: 4 values in a run of 4 bits, then the rest
    + f"0{'01'}{3:04b}" + "00000000" * 4 + f"1{'11'}{27:016b}{0:08b}"
)  # fmt: skip


def brush_bytes() -> list[int]:
    padded = BRUSH.ljust(-(-len(BRUSH) // 8) * 8, "0")
    return [int(padded[place : place + 8], 2) for place in range(0, len(padded), 8)]


def test_the_brush_encoding_is_decoded() -> None:
    assert decode_brush(brush_bytes())[3::4].reshape(SIZE).tolist() == (np.array(ROAD) * 255).tolist()


def test_label_studio_brush_strokes_and_polygons_become_a_mask(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    size = {"original_width": 6, "original_height": 4}
    brush = {"type": "brushlabels", "value": {"format": "rle", "rle": brush_bytes(), "brushlabels": ["road"]}, **size}
    points = [[50, 25], [500 / 6, 25], [500 / 6, 75], [50, 75]]
    polygon = {"type": "polygonlabels", "value": {"points": points, "polygonlabels": ["shiny car"]}, **size}
    tasks = [
        {
            "data": {"image": "/data/upload/3/0a1b2c3d-a.png"},
            "annotations": [
                {"was_cancelled": True, "result": []},
                {
                    "was_cancelled": False,
                    "result": [brush, polygon, {"type": "choices", "value": {"choices": ["day"]}}],
                },
            ],
        }
    ]
    run(monkeypatch, "labelstudio", write(tmp_path / "export.json", tasks), images, tmp_path / "data")
    assert masks(tmp_path / "data") == {"a.png": ROAD_AND_CAR}
    assert "Skipped 1 results that are neither brush strokes nor polygons." in capsys.readouterr().out


def test_ground_truth_masks_become_class_ids(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, images: Path) -> None:
    mask = Image.fromarray(np.array(ROAD_AND_CAR, np.uint8), "P")
    mask.putpalette([255, 255, 255, 44, 160, 44, 31, 119, 180])
    mask.save(tmp_path / "mask.png")
    classes = {
        "0": {"class-name": "BACKGROUND", "hex-color": "#ffffff"},
        "1": {"class-name": "road", "hex-color": "#2ca02c"},
        "2": {"class-name": "car", "hex-color": "#1f77b4"},
    }
    lines = [
        {
            "source-ref": "s3://b/in/images/a.png",
            "job-ref": "s3://b/in/mask.png",
            "job-ref-metadata": {"internal-color-map": classes},
        },
        {"source-ref": "s3://b/in/images/b.png", "job-ref-metadata": {"failure-reason": "not labeled"}},
    ]
    manifest = tmp_path / "output.manifest"
    manifest.write_text("\n".join(map(json.dumps, lines)), "utf-8")
    run(monkeypatch, "groundtruth", manifest, tmp_path / "data", "--map", f"s3://b/in={tmp_path}")
    assert masks(tmp_path / "data") == {"a.png": ROAD_AND_CAR}
    assert label_map(tmp_path / "data")["names"] == {"0": "BACKGROUND", "1": "road", "2": "car"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda file: file | {"images": [{**file["images"][0], "file_name": "b.png"}]},
            r"There is no \S+b.png. Give the",
        ),
        (lambda file: file | {"images": [{**file["images"][0], "height": 5}]}, "has 6 × 4 pixels.*are for 6 × 5"),
        (
            lambda file: file | {"categories": [{"id": 3, "name": "x"}, {"id": 90, "name": "x"}]},
            "several classes named x",
        ),
        (lambda file: file | {"categories": [{"id": 90, "name": "x"}]}, "annotation 0 has category 3"),
        (lambda file: [], "no images, annotations, and categories"),
        (lambda file: file | {"images": [{}]}, "is not valid for coco .KeyError"),
    ],
)
def test_errors_name_the_problem_and_the_fix(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, images: Path, change: Any, message: str
) -> None:
    file = coco_file(tmp_path, [(3, [SQUARE])])
    write(file, change(json.loads(file.read_text())))
    with pytest.raises(SystemExit, match=message):
        run(monkeypatch, "coco", file, images, tmp_path / "data")


def test_the_validation_channel_has_the_class_ids_of_train(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, images: Path
) -> None:
    names = {"0": "background", "1": "car", "2": "road"}
    (tmp_path / "data/label_map").mkdir(parents=True)
    write(tmp_path / "data/label_map/train_label_map.json", {"scale": 1, "names": names})
    file = coco_file(tmp_path, [(3, [SQUARE])])
    run(monkeypatch, "coco", file, images, tmp_path / "data", "--channel", "validation")
    assert masks(tmp_path / "data", "validation") == {"a.png": (np.array(ROAD) * 2).tolist()}
    assert label_map(tmp_path / "data", "validation")["names"] == names


def image(number: int) -> Array:
    return np.full((4, 4, 3), number, np.uint8)


def test_data_sets_as_downloaded_fill_the_channels(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    root, gray = tmp_path / "source", np.full((4, 4), 7, np.uint8)
    save(root / "leftImg8bit/train/aachen/aachen_000000_000019_leftImg8bit.png", image(1))
    save(root / "gtFine/train/aachen/aachen_000000_000019_gtFine_labelIds.png", gray)
    save(root / "leftImg8bit/val/bonn/bonn_1_2_leftImg8bit.png", image(2))
    save(root / "gtFine/val/bonn/bonn_1_2_gtFine_labelIds.png", gray)
    run(monkeypatch, "cityscapes", root, tmp_path / "cityscapes")
    assert list(masks(tmp_path / "cityscapes")) == ["aachen/aachen_000000_000019.png"]
    assert list(masks(tmp_path / "cityscapes", "validation")) == ["bonn/bonn_1_2.png"]
    assert label_map(tmp_path / "cityscapes")["map"]["0"] == 7
    assert label_map(tmp_path / "cityscapes")["names"]["18"] == "bicycle"

    for name, prefix in (("training", "train"), ("validation", "val")):
        save(root / f"images/{name}/ADE_{prefix}_1.jpg", image(1))
        save(root / f"annotations/{name}/ADE_{prefix}_1.png", gray)
    (root / "objectInfo150.txt").write_text(
        "Idx\tRatio\tTrain\tVal\tStuff\tName\n1\t0.1\t1\t1\t1\twall\n2\t0.1\t1\t1\t1\tbuilding, edifice\n"
    )
    run(monkeypatch, "ade20k", root, tmp_path / "ade")
    assert label_map(tmp_path / "ade") == {"map": {"0": 1, "1": 2}, "names": {"0": "wall", "1": "building, edifice"}}
    assert list(masks(tmp_path / "ade", "validation")) == ["ADE_val_1.png"]

    save(root / "701_StillsRaw_full/0001TP_1.png", image(1))
    save(root / "LabeledApproved_full/0001TP_1_L.png", image(64))
    (root / "label_colors.txt").write_text("64 128 64\tAnimal\n0 0 0\t\tVoid\n192 0 128\tArchway\n")
    run(monkeypatch, "camvid", root, tmp_path / "camvid")
    assert label_map(tmp_path / "camvid") == {
        "colors": {"#408040": 0, "#c00080": 1},
        "names": {"0": "Animal", "1": "Archway"},
    }
    assert list(masks(tmp_path / "camvid")) == ["0001TP_1.png"]


def test_split_moves_a_fifth_and_keeps_copies_together(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    data = tmp_path / "data"
    for number in range(20):
        annotation = np.zeros((4, 4), np.uint8)
        annotation[0] = 1 + (number % 2)
        annotation[1, 1] = 3 if number < 5 else 0
        save(data / f"train/{number:02}.png", image(number))
        save(data / f"train_annotation/{number:02}.png", annotation)
    Image.fromarray(image(3)).save(data / "train/copy.png", compress_level=0)
    save(data / "train_annotation/copy.png", np.full((4, 4), 3, np.uint8))
    (data / "label_map").mkdir()
    write(data / "label_map/train_label_map.json", {"scale": 1})
    run(monkeypatch, "split", data, "--validation", "0.2")
    train, validation = masks(data), masks(data, "validation")
    assert len(train) + len(validation) == 21 and 4 <= len(validation) <= 5
    for value, expected in ((1, 2), (2, 2), (3, 1)):  # a fifth of 10, 10, and 5
        assert sum(value in np.array(mask) for mask in validation.values()) in (expected, expected + 1)
    assert ("copy.png" in train) == ("03.png" in train)
    pixels = [hashlib.sha256(Image.open(path).tobytes()).digest() for path in (data / "train").iterdir()]
    others = [hashlib.sha256(Image.open(path).tobytes()).digest() for path in (data / "validation").iterdir()]
    assert not set(pixels) & set(others)
    assert label_map(data, "validation") == {"scale": 1}
    with pytest.raises(SystemExit, match="validation contains files"):
        run(monkeypatch, "split", data, "--validation", "0.2")


def test_the_split_depends_on_the_data_alone() -> None:
    classes = {f"{number:02}": frozenset({number % 3}) for number in range(30)}
    chosen = choose_validation(classes, 0.2)
    assert choose_validation(dict(reversed(classes.items())), 0.2) == chosen
    assert [sum(number in classes[name] for name in chosen) for number in range(3)] == [2, 2, 2]


@pytest.mark.parametrize("share", ["0", "1", "a"])
def test_a_share_outside_0_and_1_is_refused(share: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "local_test.convert", "split", "x", "--validation", share],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and "--validation" in done.stderr


def test_images_in_the_channel_itself_are_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    save(tmp_path / "data/train/a.png", np.zeros((*SIZE, 3), np.uint8))
    run(monkeypatch, "coco", coco_file(tmp_path, [(3, [SQUARE])]), tmp_path / "data/train", tmp_path / "data")
    assert masks(tmp_path / "data") == {"a.png": ROAD}


def test_the_target_of_a_relative_link_is_placed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, images: Path) -> None:
    (tmp_path / "links").mkdir()
    (tmp_path / "links/a.png").symlink_to("../images/a.png")
    run(monkeypatch, "coco", coco_file(tmp_path, [(3, [SQUARE])]), tmp_path / "links", tmp_path / "data")
    assert (tmp_path / "data/train/a.png").read_bytes() == (images / "a.png").read_bytes()


def test_files_with_hard_links_in_the_channels_keep_their_content(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, images: Path
) -> None:
    save(tmp_path / "original.png", np.full(SIZE, 5, np.uint8))
    for folder in ("train_annotation", "label_map"):
        (tmp_path / "data" / folder).mkdir(parents=True)
    (tmp_path / "data/train_annotation/a.png").hardlink_to(tmp_path / "original.png")
    other = write(tmp_path / "data/label_map/validation_label_map.json", {"scale": 1})
    (tmp_path / "data/label_map/train_label_map.json").hardlink_to(other)
    run(monkeypatch, "coco", coco_file(tmp_path, [(3, [SQUARE])]), images, tmp_path / "data")
    assert masks(tmp_path / "data") == {"a.png": ROAD}
    assert (np.asarray(Image.open(tmp_path / "original.png")) == 5).all()
    assert label_map(tmp_path / "data", "validation") == {"scale": 1}


@pytest.mark.parametrize("corner", [float("nan"), float("inf"), None, 1e9])
def test_a_polygon_with_an_impossible_corner_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, images: Path, corner: float | None
) -> None:
    file = coco_file(tmp_path, [(3, [[corner, *SQUARE[1:]]])])
    code = "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30)); sys.argv[0] = 'convert'"
    command = [sys.executable, "-c", f"{code}; from local_test import convert; convert.main()"]
    done = subprocess.run(
        [*command, "coco", file, images, tmp_path / "data"],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=PROGRAM,
        env={"PATH": "/usr/bin:/bin", "OPENBLAS_NUM_THREADS": "1"},
    )
    message = "a polygon has a corner without two numbers from -1000000 to 1000000). Export it again."
    assert (done.returncode, message in done.stderr) == (1, True), done.stderr


def test_a_background_class_has_the_id_0(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, images: Path) -> None:
    file = coco_file(tmp_path, [(3, [SQUARE]), (90, [[3, 1, 4, 1, 4, 3, 3, 3]])])
    content = json.loads(file.read_text())
    content["categories"] = [{"id": 90, "name": "background"}, {"id": 3, "name": "road"}]
    run(monkeypatch, "coco", write(file, content), images, tmp_path / "data")
    assert label_map(tmp_path / "data")["names"] == {"0": "background", "1": "road"}
    expected = np.array(ROAD)
    expected[:, 3] = 0
    assert masks(tmp_path / "data") == {"a.png": expected.tolist()}


@pytest.mark.parametrize("orientation", [1, 6])
def test_only_an_exif_orientation_swaps_height_and_width(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, orientation: int
) -> None:
    (tmp_path / "images").mkdir()
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Image.new("RGB", SIZE).save(tmp_path / "images/a.png", exif=exif)
    file = coco_file(tmp_path, [(3, [SQUARE])])
    if orientation == 6:
        run(monkeypatch, "coco", file, tmp_path / "images", tmp_path / "data")
        assert masks(tmp_path / "data") == {"a.png": ROAD}
    else:
        with pytest.raises(SystemExit, match="has 4 × 6 pixels, but its annotations are for 6 × 4"):
            run(monkeypatch, "coco", file, tmp_path / "images", tmp_path / "data")


@pytest.mark.parametrize(
    "shape",
    [
        '<box label="road" xtl="2" ytl="9" xbr="18" ybr="11" rotation="{}"/>',
        '<ellipse label="road" cx="10" cy="10" rx="8" ry="2" rotation="{}"/>',
    ],
    ids=["box", "ellipse"],
)
def test_cvat_rotation_is_clockwise_about_the_center(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, shape: str
) -> None:
    save(tmp_path / "images/a.png", np.zeros((20, 20, 3), np.uint8))
    file = tmp_path / "annotations.xml"
    for angle, inside, outside in ((0, (10, 16), (16, 10)), (90, (16, 10), (10, 16)), (45, (14, 14), (6, 14))):
        body = shape.format(angle)
        file.write_text(f'<annotations><image name="a.png" width="20" height="20">{body}</image></annotations>')
        run(monkeypatch, "cvat", file, tmp_path / "images", tmp_path / "data")
        mask = masks(tmp_path / "data")["a.png"]
        assert (mask[inside[0]][inside[1]], mask[outside[0]][outside[1]]) == (1, 0)


def test_labelme_skips_other_json_files_and_reads_a_missing_type_as_polygon(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, images: Path
) -> None:
    (images / "._a.json").write_bytes(b"\0\5\x16\7")  # macOS writes such files to other disks
    write(images / "other.json", 5)
    shape = {"label": "road", "shape_type": None, "points": np.reshape(SQUARE, (4, 2)).tolist()}
    content = {"imagePath": "a.png", "imageHeight": SIZE[0], "imageWidth": SIZE[1], "shapes": [shape]}
    write(images / "a.json", content)
    run(monkeypatch, "labelme", images, tmp_path / "data")
    assert masks(tmp_path / "data") == {"a.png": ROAD}
    shape |= {"shape_type": "mask", "points": [[1, 1], [3, 3]], "mask": "AAAA"}
    write(images / "a.json", content)
    with pytest.raises(SystemExit, match=r"a mask is not a readable image.*Export it again"):
        run(monkeypatch, "labelme", images, tmp_path / "data")


@pytest.mark.parametrize(
    "data",
    [
        {"image": "/data/local-files/?d=set%2F%C3%BC%20a.png"},
        {"image": "https://host/set/%C3%BC%20a.png?X-Amz-Expires=60"},
        {"title": "a street", "image": "/data/upload/1/0a1b2c3d-ü a.png"},
    ],
)
def test_label_studio_images_are_found_by_any_address(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, data: dict[str, str]
) -> None:
    save(tmp_path / "images/ü a.png", np.zeros((*SIZE, 3), np.uint8))
    result = {"type": "polygonlabels", "original_width": SIZE[1], "original_height": SIZE[0]}
    points = (np.reshape(SQUARE, (4, 2)) / SIZE[::-1] * 100).tolist()
    unfinished = {**result, "value": {"polygonlabels": ["road"], "points": points[:2]}}
    regions = [unfinished, {**result, "value": {"polygonlabels": ["road"], "points": points}}]
    tasks = [{"data": data, "annotations": [{"result": regions}]}]
    run(monkeypatch, "labelstudio", write(tmp_path / "e.json", tasks), tmp_path / "images", tmp_path / "data")
    assert masks(tmp_path / "data") == {"ü a.png": ROAD}


def test_images_of_an_earlier_run_are_reported(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path / "data/train/old.png", np.zeros((*SIZE, 3), np.uint8))
    run(monkeypatch, "coco", coco_file(tmp_path, [(3, [SQUARE])]), images, tmp_path / "data")
    folder = tmp_path / "data/train"
    expected = f"{folder} also contains 1 other images, such as {folder / 'old.png'}. Remove older ones."
    assert capsys.readouterr().out.splitlines()[-1] == expected


def test_unusable_files_are_reported_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, images: Path
) -> None:
    file = coco_file(tmp_path, [(3, [SQUARE])])
    with pytest.raises(SystemExit, match=r"Not a directory.*Make sure that .* you can write to \S+coco.json"):
        run(monkeypatch, "coco", file, images, file)
    with pytest.raises(SystemExit, match=r"contains no images\. Export it again"):
        run(
            monkeypatch,
            "coco",
            write(file, json.loads(file.read_text()) | {"images": [], "annotations": []}),
            images,
            "x",
        )
    for number in range(4):
        save(tmp_path / f"data/train/{number}.png", image(number))
        save(tmp_path / f"data/train_annotation/{number}.png", np.zeros((4, 4), np.uint8))
    (tmp_path / "data/validation").mkdir()
    (tmp_path / "data/validation/.DS_Store").touch()
    (tmp_path / "data/train/1.png").write_bytes(b"no image")
    with pytest.raises(SystemExit, match=r"\S+1.png is not a readable image.*Replace it, or remove the pair"):
        run(monkeypatch, "split", tmp_path / "data", "--validation", 0.5)
