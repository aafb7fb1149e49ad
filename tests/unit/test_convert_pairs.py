"""Pairs and manifests of channel directories and of Pascal VOC."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


def convert(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "local_test.convert", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def put(path: Path, content: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content or path.name)
    return path


def lines(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    data = tmp_path / "input" / "data"
    for channel, stem in (("train", "b"), ("train", "a"), ("validation", "c")):
        put(data / channel / f"{stem}.JPG")
        put(data / f"{channel}_annotation" / f"{stem}.png")
    put(data / "train" / ".DS_Store")
    put(data / "train" / "notes.txt")
    return data


@pytest.fixture
def devkit(tmp_path: Path) -> Path:
    year = tmp_path / "VOCdevkit" / "VOC2012"
    put(year / "ImageSets" / "Segmentation" / "train.txt", "2007_000032\n2007_000039\n")
    put(year / "ImageSets" / "Segmentation" / "val.txt", "2007_000033\n")
    for stem in ("2007_000032", "2007_000033", "2007_000039", "2007_999999"):
        put(year / "JPEGImages" / f"{stem}.jpg")
    for stem in ("2007_000032", "2007_000033", "2007_000039"):
        put(year / "SegmentationClass" / f"{stem}.png")
    return tmp_path / "VOCdevkit"


def test_directories_become_manifests_with_local_paths(data: Path) -> None:
    answer = convert("directories", data)
    assert answer.returncode == 0, answer.stderr
    assert lines(data.parent / "train.manifest") == [
        {"source-ref": str(data / "train" / f"{s}.JPG"), "annotation-ref": str(data / "train_annotation" / f"{s}.png")}
        for s in "ab"
    ]
    assert len(lines(data.parent / "validation.manifest")) == 1


def test_directories_become_manifests_with_s3_uris(data: Path, tmp_path: Path) -> None:
    answer = convert("directories", data, "--s3-prefix", "s3://bucket/set/", "--manifests", tmp_path / "out")
    assert answer.returncode == 0, answer.stderr
    assert lines(tmp_path / "out" / "validation.manifest") == [
        {
            "source-ref": "s3://bucket/set/validation/c.JPG",
            "annotation-ref": "s3://bucket/set/validation_annotation/c.png",
        }
    ]


def test_directories_are_paired_as_a_job_pairs_them(data: Path) -> None:
    """Files of one name in two directories match by path, and the masks of a prefix without a slash are skipped."""
    for channel in ("train", "train_annotation"):
        for city in ("bonn", "ulm"):
            put(data / channel / city / "1.png", f"{channel} {city}")
        for path in data.glob(f"{channel}/?.*"):
            path.unlink()
    put(data / "train" / "train_annotation" / "bonn" / "1.png", "train_annotation bonn")
    answer = convert("directories", data)
    assert answer.returncode == 0, answer.stderr
    assert lines(data.parent / "train.manifest") == [
        {
            "source-ref": str(data / "train" / city / "1.png"),
            "annotation-ref": str(data / "train_annotation" / city / "1.png"),
        }
        for city in ("bonn", "ulm")
    ]
    assert "1 files in train/train_annotation belong to another channel" in answer.stderr


def test_images_without_annotations_are_listed(data: Path) -> None:
    (data / "train_annotation" / "b.png").unlink()
    answer = convert("directories", data)
    assert answer.returncode == 1
    assert answer.stderr.splitlines()[-1].startswith(
        "convert: channel train and its annotations do not match. 1 of 2 images"
    )
    assert answer.stderr.rstrip().endswith(f"{data / 'train' / 'b.JPG'} has no annotation")


def test_missing_directory_is_an_error(data: Path, tmp_path: Path) -> None:
    answer = convert("directories", tmp_path / "nowhere")
    assert answer.returncode == 1
    assert f"{tmp_path / 'nowhere' / 'train'} does not exist" in answer.stderr


@pytest.mark.parametrize("below", ["", "VOC2012"])
def test_voc_lists_select_the_files_of_the_channels(devkit: Path, tmp_path: Path, below: str) -> None:
    data = tmp_path / "job" / "data"
    answer = convert("voc", devkit / below, data)
    assert answer.returncode == 0, answer.stderr
    files = {str(path.relative_to(data)): path.read_text() for path in data.glob("[tv]*/*")}
    assert files == {
        "train/2007_000032.jpg": "2007_000032.jpg",
        "train/2007_000039.jpg": "2007_000039.jpg",
        "train_annotation/2007_000032.png": "2007_000032.png",
        "train_annotation/2007_000039.png": "2007_000039.png",
        "validation/2007_000033.jpg": "2007_000033.jpg",
        "validation_annotation/2007_000033.png": "2007_000033.png",
    }
    assert [Path(line["source-ref"]).name for line in lines(data.parent / "train.manifest")] == [
        "2007_000032.jpg",
        "2007_000039.jpg",
    ]


def test_voc_can_be_converted_twice(devkit: Path, tmp_path: Path) -> None:
    assert convert("voc", devkit, tmp_path / "data").returncode == 0
    answer = convert("voc", devkit, tmp_path / "data")
    assert answer.returncode == 0, answer.stderr


def test_missing_file_of_a_voc_list_is_an_error(devkit: Path, tmp_path: Path) -> None:
    missing = devkit / "VOC2012" / "SegmentationClass" / "2007_000039.png"
    missing.unlink()
    answer = convert("voc", devkit, tmp_path / "data")
    assert answer.returncode == 1 and str(missing) in answer.stderr
    assert not (tmp_path / "data").exists()


def test_directory_without_voc_lists_is_an_error(tmp_path: Path) -> None:
    answer = convert("voc", tmp_path, tmp_path / "data")
    assert answer.returncode == 1
    assert "ImageSets/Segmentation/train.txt" in answer.stderr and "JPEGImages" in answer.stderr
