"""Pairs from two directories, filled as S3, the platform and people fill them."""

from __future__ import annotations

import logging
import os
import shutil
import unicodedata
from pathlib import Path

import pytest
from PIL import Image

from container.data.pairing import find_pairs
from container.environment import Channel
from container.errors import ClientError


def channels(root: Path, *files: str, also: tuple[str, ...] = ()) -> dict[str, Channel]:
    """Write pictures below `root`, and describe the channels of a job."""
    for number, name in enumerate(files):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4 + number, 4)).save(path)
    names = ("train", "train_annotation", "validation", "validation_annotation", *also)
    return {name: Channel(name, root / name) for name in names}


def pairs(given: dict[str, Channel], channel: str = "train") -> list[tuple[str, str]]:
    found = find_pairs(given, channel)
    below = [[each.image.relative_to(given[channel].path.parent), each.annotation] for each in found]
    return [(str(image), str(annotation.relative_to(given[channel].path.parent))) for image, annotation in below]


def refusal(given: dict[str, Channel]) -> ClientError:
    with pytest.raises(ClientError) as caught:
        find_pairs(given, "train")
    return caught.value


@pytest.mark.parametrize("folder", ["train_annotation", "_annotation", "masks"])
def test_masks_that_a_prefix_without_a_slash_also_matches_are_skipped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, folder: str
) -> None:
    given = channels(tmp_path, "train/a.png", "train/b.jpg", "train_annotation/a.png", "train_annotation/b.png")
    (tmp_path / "train" / folder).mkdir()
    for name in ("a.png", "b.png"):
        (tmp_path / "train" / folder / name).write_bytes((tmp_path / "train_annotation" / name).read_bytes())
    with caplog.at_level(logging.WARNING):
        found = pairs(given)
    assert found == [("train/a.png", "train_annotation/a.png"), ("train/b.jpg", "train_annotation/b.png")]
    assert [record.getMessage() for record in caplog.records] == [
        f"channel train: 2 files in train/{folder} belong to another channel and are skipped. An S3 prefix without "
        "a slash at its end also matches these files. Add a slash to the S3Uri of the channel (s3://…/train/)"
    ]


def test_a_bucket_given_as_prefix_brings_every_channel_along(tmp_path: Path) -> None:
    folders = ("train", "train_annotation", "validation", "validation_annotation")
    given = channels(tmp_path, *(f"bucket/{folder}/{name}.png" for folder in folders for name in "ab"))
    for channel in folders:
        shutil.copytree(tmp_path / "bucket", tmp_path / channel)
    assert pairs(given) == [(f"train/train/{n}.png", f"train_annotation/train_annotation/{n}.png") for n in "ab"]


def test_directory_with_the_name_of_another_channel_is_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    given = channels(
        tmp_path,
        *(f"{c}/{folder}/a.png" for c in ("train", "train_annotation") for folder in ("test", "day")),
        "test/b.png",
        also=("test",),
    )
    assert len(pairs(given)) == 2
    assert not caplog.records


def test_masks_of_another_prefix_are_known_by_being_the_annotations(tmp_path: Path) -> None:
    given = channels(tmp_path, "train/tr/a.jpg", "train/tr/b.jpg", "train_annotation/tr_masks/a.png")
    channels(tmp_path, "train_annotation/tr_masks/b.png")
    shutil.copytree(tmp_path / "train_annotation/tr_masks", tmp_path / "train/tr_masks")
    assert [image for image, _ in pairs(given)] == ["train/tr/a.jpg", "train/tr/b.jpg"]


def test_a_channel_that_lies_whole_in_a_folder_of_another_name_is_kept(tmp_path: Path) -> None:
    given = channels(tmp_path, "train/train/a.jpg", "train_annotation/train/a.png")
    assert pairs(given) == [("train/train/a.jpg", "train_annotation/train/a.png")]


def test_trees_of_folders_pair_by_path(tmp_path: Path) -> None:
    given = channels(
        tmp_path,
        *(f"{c}/seq{n}/0001.png" for c in ("train", "train_annotation") for n in (1, 2)),
        "train/seq2/0009.jpg",
    )
    error = refusal(given)
    assert error.details == (f"{tmp_path}/train/seq2/0009.jpg has no annotation",)
    (tmp_path / "train/seq2/0009.jpg").unlink()
    assert pairs(given) == [
        ("train/seq1/0001.png", "train_annotation/seq1/0001.png"),
        ("train/seq2/0001.png", "train_annotation/seq2/0001.png"),
    ]


def test_a_folder_around_one_of_the_trees_does_not_count(tmp_path: Path) -> None:
    given = channels(
        tmp_path,
        *(f"train/leftImg8bit/train/{town}/1.png" for town in ("aachen", "bonn")),
        *(f"train_annotation/{town}/1.png" for town in ("aachen", "bonn")),
    )
    assert [annotation for _, annotation in pairs(given)] == [
        "train_annotation/aachen/1.png",
        "train_annotation/bonn/1.png",
    ]


def test_files_match_by_name_without_common_directories(tmp_path: Path) -> None:
    given = channels(
        tmp_path, "train/city/a.jpg", "train/land/b.jpg", "train/c.jpg", *(f"train_annotation/{s}.png" for s in "abc")
    )
    assert [image for image, _ in pairs(given)] == ["train/city/a.jpg", "train/land/b.jpg", "train/c.jpg"]
    channels(tmp_path, "train/land/a.jpg")
    error = refusal(given)
    assert error.message.startswith("channel train contains two files with the same name in different directories")
    assert error.details == (f"{tmp_path}/train/city/a.jpg", f"{tmp_path}/train/land/a.jpg")


def test_names_match_across_unicodes_normal_forms(tmp_path: Path) -> None:
    given = channels(
        tmp_path,
        "train/" + unicodedata.normalize("NFD", "Größe é.jpg"),
        "train_annotation/" + unicodedata.normalize("NFC", "Größe é.png"),
    )
    assert len(pairs(given)) == 1


def test_a_name_that_is_not_utf8_is_shown_escaped(tmp_path: Path) -> None:
    given = channels(tmp_path, "train/a.jpg", "train_annotation/a.png")
    os.rename(os.fsencode(tmp_path / "train/a.jpg"), os.fsencode(tmp_path / "train") + b"/stra\xdfe.jpg")
    assert "train/stra\\xdfe.jpg has no annotation" in str(refusal(given))


def test_mismatch_error_has_the_fix_before_the_names(tmp_path: Path) -> None:
    given = channels(
        tmp_path,
        *(f"train/aachen/aachen_{n:06}_000019_leftImg8bit.png" for n in range(30)),
        *(f"train_annotation/aachen/aachen_{n:06}_000019_gtFine_labelIds.png" for n in range(30)),
    )
    error = refusal(given)
    assert str(error).startswith(
        "channel train and its annotations do not match. 30 of 30 images and 30 of 30 annotations have no partner. "
        "The names of the images end in _leftImg8bit and the names of the annotations end in _gtFine_labelIds. Rename "
        "the files without these endings: "
    )
    assert len(error.details) == 60
    assert len(error.reason) <= 1024
    assert " more" in error.reason[-12:]


def test_mismatch_error_lists_the_missing_files(tmp_path: Path) -> None:
    given = channels(tmp_path, "train/a.jpg", "train/b.jpg", "train_annotation/a.png", "train_annotation/c.png")
    assert str(refusal(given)) == (
        "channel train and its annotations do not match. 1 of 2 images and 1 of 2 annotations have no partner. "
        "Each image needs a .png annotation with the same name (extensions can differ). Add or remove files: "
        f"{tmp_path}/train/b.jpg has no annotation; {tmp_path}/train_annotation/c.png has no image"
    )


def test_two_files_with_one_name_are_rejected(tmp_path: Path) -> None:
    given = channels(tmp_path, "train/a.jpg", "train/a.png", "train_annotation/a.png")
    assert str(refusal(given)) == (
        "channel train contains two files with the same name. Rename or remove one of them. Images and annotations "
        "need separate directories: "
        f"{tmp_path}/train/a.png; {tmp_path}/train/a.jpg"
    )


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        (["train_annotation/a.png"], "channel train contains no images. Add .jpg, .jpeg, or .png files"),
        (
            ["train/a.jpg"],
            "channel train_annotation contains no annotations. Add .png files with the names of their images",
        ),
    ],
)
def test_empty_channel_is_rejected(tmp_path: Path, files: list[str], reason: str) -> None:
    given = channels(tmp_path, *files)
    for channel in ("train", "train_annotation"):
        (tmp_path / channel).mkdir(exist_ok=True)
    assert str(refusal(given)) == reason


def test_other_files_are_logged_up_to_a_limit(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    given = channels(tmp_path, "train/a.jpg", "train_annotation/a.png")
    for stray in (".DS_Store", "._a.jpg", *(f"{number:03}.txt" for number in range(40))):
        (tmp_path / "train" / stray).write_text("stray")
    (tmp_path / "train/gone.jpg").symlink_to(tmp_path / "nowhere")
    with caplog.at_level(logging.WARNING):
        assert len(pairs(given)) == 1
    told = [record.getMessage() for record in caplog.records]
    assert told[0] == f"{tmp_path}/train/.DS_Store is not a readable image file"
    assert len(told) == 21
    assert told[-1] == f"23 more files in {tmp_path}/train are not readable image files"


def test_links_to_folders_are_followed_and_circles_left(tmp_path: Path) -> None:
    given = channels(tmp_path, "elsewhere/a.jpg", "train_annotation/a.png")
    (tmp_path / "train").mkdir()
    (tmp_path / "train/linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/circle").symlink_to(tmp_path / "train")
    assert pairs(given) == [("train/linked/a.jpg", "train_annotation/a.png")]


def test_a_folder_that_is_linked_twice_is_read_twice(tmp_path: Path) -> None:
    given = channels(tmp_path, "train/s1/a.jpg", "train_annotation/s1/a.png", "train_annotation/s2/a.png")
    (tmp_path / "train/s2").symlink_to("s1")
    assert [image for image, _ in pairs(given)] == ["train/s1/a.jpg", "train/s2/a.jpg"]


@pytest.mark.parametrize("suffix", [".jfif", ".jpe", ".JFIF", ".JPG"])
def test_all_jpeg_suffixes_are_images(tmp_path: Path, suffix: str) -> None:
    given = channels(tmp_path, "train_annotation/a.png")
    (tmp_path / "train").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / f"train/a{suffix}", "JPEG")
    assert pairs(given) == [(f"train/a{suffix}", "train_annotation/a.png")]


def test_the_failure_names_the_skipped_file_of_the_same_name(tmp_path: Path) -> None:
    given = channels(tmp_path, "train/a.jpg", "train_annotation/a.png", "train_annotation/b.png")
    channels(tmp_path, "train_annotation/c.png", "train/d.png")
    (tmp_path / "train/b.tif").write_bytes(b"II*\0")
    (tmp_path / "train/c.jpg").symlink_to(tmp_path / "gone.jpg")
    (tmp_path / "train_annotation/d.jpg").write_bytes(b"\xff\xd8\xff")
    assert refusal(given).details == (
        f"{tmp_path}/train/d.png has no annotation: {tmp_path}/train_annotation/d.jpg is skipped: it is not a .png "
        "file",
        f"{tmp_path}/train_annotation/b.png has no image: {tmp_path}/train/b.tif is skipped: it is not a .jpg, .jpeg, "
        ".jpe, .jfif, .png file",
        f"{tmp_path}/train_annotation/c.png has no image: {tmp_path}/train/c.jpg is skipped: it is a broken link to "
        f"{tmp_path}/gone.jpg",
    )


def test_a_channel_of_skipped_files_names_them(tmp_path: Path) -> None:
    given = channels(tmp_path, "train_annotation/a.png")
    (tmp_path / "train").mkdir()
    (tmp_path / "train/a.bmp").write_bytes(b"BM")
    (tmp_path / "train/.DS_Store").write_bytes(b"")
    error = refusal(given)
    assert error.message.startswith("channel train contains no images")
    assert error.details == (f"{tmp_path}/train/a.bmp is skipped: it is not a .jpg, .jpeg, .jpe, .jfif, .png file",)


def test_a_broken_link_is_named_when_all_other_files_match(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    given = channels(tmp_path, "train/a.jpg", "train_annotation/a.png")
    (tmp_path / "train/b.jpg").symlink_to(tmp_path / "gone.jpg")
    with caplog.at_level(logging.WARNING):
        assert len(pairs(given)) == 1
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path}/train/b.jpg is not a readable image file: it is a broken link to {tmp_path}/gone.jpg"
    ]


def test_backslashes_in_names_are_explained(tmp_path: Path) -> None:
    given = channels(tmp_path, "train/images\\0001.jpg", "train_annotation/masks\\0001.png")
    assert "File names contain backslashes (images\\0001.jpg), because a program on Windows created the archive" in str(
        refusal(given)
    )


@pytest.mark.parametrize(
    ("images", "annotations"),
    [
        ("sequence_03", "sequence_04"),
        ("images/seq3", "masks/seq4"),
        ("part_1", "part_2"),
        ("run01/left", "run02/left"),
        ("conv1", "conv2"),
    ],
)
def test_another_part_of_one_series_is_rejected(tmp_path: Path, images: str, annotations: str) -> None:
    given = channels(tmp_path, f"train/{images}/a.jpg", f"train_annotation/{annotations}/a.png")
    message = refusal(given).message
    numbered = [next(part for part in name.split("/") if part[-1].isdigit()) for name in (images, annotations)]
    assert message.startswith(
        f"channel train: the images are in {numbered[0]} but their annotations are in {numbered[1]}"
    )
    assert "give both directories the same name" in message


@pytest.mark.parametrize(
    ("images", "annotations"),
    [
        ("1", "2"),
        ("v1", "v2"),
        ("data_v1", "data_v2"),
        ("masks-v1.0", "masks-v1.1"),
        ("data_version_1", "data_version_2"),
        ("export_2024-01-05", "export_2024-01-06"),
    ],
)
def test_numbers_dates_and_versions_can_differ_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, images: str, annotations: str
) -> None:
    given = channels(tmp_path, f"train/{images}/a.jpg", f"train_annotation/{annotations}/a.png")
    with caplog.at_level(logging.WARNING):
        assert len(pairs(given)) == 1
    assert [record.getMessage().startswith("channel train: the images are in") for record in caplog.records] == [True]


@pytest.mark.parametrize(("images", "annotations"), [("images2", "masks2"), ("img_1", "mask_2"), ("", "masks_3")])
def test_other_directory_names_match_without_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, images: str, annotations: str
) -> None:
    given = channels(tmp_path, f"train/{images}/a.jpg", f"train_annotation/{annotations}/a.png")
    with caplog.at_level(logging.WARNING):
        assert len(pairs(given)) == 1
    assert not caplog.records
