from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from container import hyperparameters
from local_test.demo_data import CLASSES
from local_test.overlay import color_mask, draw_overlay, palette, read_class_names

CHANNELS = {"train", "train_annotation", "validation", "validation_annotation", "label_map"}


def write(output: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "local_test.demo_data", "--output", str(output), *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def digests(root: Path) -> dict[str, str]:
    files = (path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("demo")
    assert write(root, "--train", "12", "--validation", "3", "--size", "80x64", "epochs=2").returncode == 0
    return root


def test_channels_hold_pairs_of_jpeg_and_palette_png(demo: Path) -> None:
    data = demo / "input" / "data"
    assert {path.name for path in data.iterdir()} == CHANNELS
    for channel, count in (("train", 12), ("validation", 3)):
        images = sorted((data / channel).iterdir())
        annotations = sorted((data / f"{channel}_annotation").iterdir())
        assert [path.stem for path in images] == [path.stem for path in annotations]
        assert len(images) == count
        for image, annotation in zip(images, annotations, strict=True):
            with Image.open(image) as picture, Image.open(annotation) as mask:
                assert (picture.format, picture.mode, picture.size) == ("JPEG", "RGB", (80, 64))
                assert (mask.format, mask.mode, mask.size) == ("PNG", "P", (80, 64))


def test_every_class_is_drawn_and_no_other_id(demo: Path) -> None:
    ids = [np.asarray(Image.open(path)) for path in (demo / "input" / "data" / "train_annotation").iterdir()]
    assert np.unique(np.stack(ids)).tolist() == [0, 1, 2, 3, 4]


def test_classes_look_different(demo: Path) -> None:
    data = demo / "input" / "data"
    pixels: dict[int, list[np.ndarray]] = {label: [] for label in range(len(CLASSES))}
    for path in (data / "train").iterdir():
        picture = np.asarray(Image.open(path)).astype(float)
        ids = np.asarray(Image.open(data / "train_annotation" / f"{path.stem}.png"))
        for label in pixels:
            pixels[label].append(picture[ids == label])
    red, green, blue = ({k: np.concatenate(v)[:, c].mean() for k, v in pixels.items()} for c in range(3))
    assert red[1] > green[1] + 50 and red[1] > blue[1] + 50
    assert blue[2] > red[2] + 50
    assert green[3] > red[3] + 40 and green[3] > blue[3] + 40
    assert min(red[4], green[4]) > blue[4] + 50
    assert max(red[0], green[0], blue[0]) - min(red[0], green[0], blue[0]) < 40


def test_same_seed_same_files_and_another_seed_others(tmp_path: Path) -> None:
    for name, seed in (("a", "5"), ("b", "5"), ("c", "6")):
        assert write(tmp_path / name, "--train", "2", "--validation", "2", "--seed", seed).returncode == 0
    first, again, other = (digests(tmp_path / name) for name in "abc")
    assert first == again
    image = "input/data/train/train_0000.jpg"
    assert first[image] != other[image]
    assert first[image] != first["input/data/validation/validation_0000.jpg"]


def test_job_is_configured_as_the_platform_would(demo: Path) -> None:
    config = demo / "input" / "config"
    raw = json.loads((config / "hyperparameters.json").read_text())
    assert all(isinstance(value, str) for value in raw.values())
    job = hyperparameters.load(raw)
    assert (job.num_classes, job.num_training_samples, job.epochs, job.use_pretrained_model) == (5, 12, 2, False)
    channels = json.loads((config / "inputdataconfig.json").read_text())
    assert channels.keys() == CHANNELS
    assert {channel["TrainingInputMode"] for channel in channels.values()} == {"File"}
    assert json.loads((config / "resourceconfig.json").read_text())["hosts"] == ["algo-1"]
    names = ["background", "circle", "square", "triangle", "cross"]
    assert json.loads((demo / "classes.json").read_text()) == names
    for channel in ("train", "validation"):
        label_map = json.loads((demo / f"input/data/label_map/{channel}_label_map.json").read_text())
        assert label_map == {"scale": 1, "names": names}


@pytest.mark.parametrize("arguments", [("--size", "80"), ("--size", "8x80"), ("--train", "0"), ("epochs",)])
def test_wrong_arguments_are_refused_by_name(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    answer = write(tmp_path / "out", *arguments)
    assert answer.returncode == 2
    assert arguments[0].lstrip("-") in answer.stderr.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_palette_is_pascal_vocs() -> None:
    # http://host.robots.ox.ac.uk/pascal/VOC/voc2012/htmldoc/devkit_doc.html: aeroplane, bicycle, tvmonitor, void
    colors = np.array(palette()).reshape(256, 3)
    assert colors[[1, 2, 20, 255]].tolist() == [[128, 0, 0], [0, 128, 0], [0, 64, 128], [224, 224, 192]]


@pytest.mark.parametrize("mode", ["L", "P"])
def test_mask_keeps_its_class_ids_and_shows_their_colors(mode: str) -> None:
    mask = Image.new(mode, (2, 1))
    mask.putpixel((1, 0), 2)
    colored = color_mask(mask)
    assert np.asarray(colored).tolist() == [[0, 2]]
    assert np.asarray(colored.convert("RGB")).tolist() == [[[0, 0, 0], [0, 128, 0]]]


def test_overlay_colors_what_is_not_background() -> None:
    photo = Image.new("RGB", (480, 10), (100, 100, 100))
    mask = Image.new("L", (480, 10))
    mask.paste(1, (240, 0, 480, 10))
    picture = draw_overlay(photo, mask, ["background", "circle"])
    assert picture.getpixel((0, 0)) == (100, 100, 100)
    assert picture.getpixel((479, 9)) == (114, 50, 50)
    assert picture.width == 480 and picture.height > 10


def test_small_photograph_is_enlarged_for_the_overlay() -> None:
    picture = draw_overlay(Image.new("RGB", (100, 50), "white"), Image.new("L", (100, 50)))
    assert picture.width == 500 and picture.height > 250


def test_names_for_pictures_come_from_a_list_or_from_a_models_classes(tmp_path: Path) -> None:
    path = tmp_path / "classes.json"
    assert read_class_names(path) == []
    path.write_text('["road", "car"]')
    assert read_class_names(path) == ["road", "car"]
    path.write_text('[{"id": 2, "name": "car", "color": "#010203"}, {"id": 0, "color": "#010203"}]')
    assert read_class_names(path) == ["", "", "car"]


def test_class_names_are_utf_8_in_every_locale(tmp_path: Path) -> None:
    path = tmp_path / "classes.json"
    path.write_text('["Straße"]', encoding="utf-8")
    code = (
        "import pathlib, sys; from local_test.overlay import read_class_names; "
        "print(ascii(read_class_names(pathlib.Path(sys.argv[1]))))"
    )
    command = [sys.executable, "-X", "utf8=0", "-c", code, str(path)]
    locale = {**os.environ, "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"}
    assert subprocess.run(command, env=locale, capture_output=True, text=True).stdout == "['Stra\\xdfe']\n"
