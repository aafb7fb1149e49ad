"""Channels: what is missing, unpaired or unreadable is named before anything is trained."""

from __future__ import annotations

import json
import logging
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from container.data.labels import LabelMap
from container.data.samples import FileSample, check_channels, decode_sample, open_samples
from container.environment import Environment
from container.errors import ClientError
from container.hyperparameters import load
from tests.conftest import JobFactory
from tests.pictures import noise, opened, save

JOB = load({"num_classes": 2, "num_training_samples": 1})


def names(root: Path, rng: np.random.Generator | None = None) -> list[str]:
    samples = open_samples(Environment.read(root), "train", JOB)
    return [Path(sample.name).name for sample in samples.epoch(rng, threading.Event())]


def test_pairs_come_in_the_order_of_their_names(make_job: JobFactory) -> None:
    assert names(make_job(train=3)) == ["train-0.jpg", "train-1.jpg", "train-2.jpg"]


def test_shuffling_keeps_every_pair_once(make_job: JobFactory) -> None:
    shuffled = names(make_job(train=8), np.random.default_rng(1))
    assert sorted(shuffled) == [f"train-{number}.jpg" for number in range(8)]
    assert shuffled != sorted(shuffled)


def test_missing_channels_are_all_named(make_job: JobFactory) -> None:
    root = make_job()
    (root / "input/data/validation").rename(root / "input/data/valid")
    (root / "input/data/train_annotation").rename(root / "input/data/annotations")
    with pytest.raises(ClientError) as caught:
        check_channels(Environment.read(root))
    given = "annotations, train, valid, validation_annotation"
    assert str(caught.value) == (
        f"the input channels are not complete: channel train_annotation is missing (given: {given}); "
        f"channel validation is missing (given: {given})"
    )


def test_an_unsupported_content_type_is_named(make_job: JobFactory) -> None:
    root = make_job()
    config = {
        name: {"TrainingInputMode": "File", "ContentType": "text/csv" if name == "train" else "image/png"}
        for name in ("train", "train_annotation", "validation", "validation_annotation")
    }
    (root / "input/config/inputdataconfig.json").write_text(json.dumps(config))
    with pytest.raises(
        ClientError, match="channel train has ContentType text/csv; use application/x-image or image/jpeg"
    ):
        check_channels(Environment.read(root))


def test_unpaired_stems_are_listed_up_to_twenty(make_job: JobFactory) -> None:
    root = make_job(train=23)
    for number in range(22):
        (root / f"input/data/train_annotation/train-{number}.png").unlink()
    Image.new("L", (4, 4)).save(root / "input/data/train_annotation/alone.png")
    with pytest.raises(ClientError) as caught:
        names(root)
    message = str(caught.value)
    assert message.count("has no annotation") == 20
    assert "and 3 more" in message

    (root / "input/data/train/train-22.jpg").unlink()
    for number in range(1, 22):
        (root / f"input/data/train/train-{number}.jpg").unlink()
    with pytest.raises(
        ClientError, match=r"train-0\.jpg has no annotation, alone\.png has no image, train-22\.png has no image;"
    ):
        names(root)


def test_an_empty_channel_is_named(make_job: JobFactory) -> None:
    root = make_job(train=1)
    (root / "input/data/train/train-0.jpg").unlink()
    with pytest.raises(ClientError, match="channel train holds no image"):
        names(root)


def test_strays_are_passed_over_with_one_warning_each(make_job: JobFactory, caplog: pytest.LogCaptureFixture) -> None:
    root = make_job(train=1)
    for stray in (".DS_Store", "._train-0.jpg", "list.manifest"):
        (root / "input/data/train" / stray).write_text("stray")
    with caplog.at_level(logging.WARNING):
        assert names(root) == ["train-0.jpg"]
    warned = [record.getMessage() for record in caplog.records]
    assert {Path(message.split()[0]).name for message in warned} == {".DS_Store", "._train-0.jpg", "list.manifest"}
    assert len(warned) == 3
    assert all(message.endswith("is not a readable image file") for message in warned)


def test_nested_folders_pair_by_path_or_by_stem(make_job: JobFactory) -> None:
    root = make_job(train=2)
    images, annotations = root / "input/data/train", root / "input/data/train_annotation"
    (images / "city").mkdir()
    (images / "train-0.jpg").rename(images / "city/train-0.jpg")
    assert names(root) == ["train-0.jpg", "train-1.jpg"]  # annotations are not nested
    (annotations / "city").mkdir()
    (annotations / "train-0.png").rename(annotations / "city/train-0.png")
    assert names(root) == ["train-0.jpg", "train-1.jpg"]


def decode(root: Path) -> tuple[np.ndarray, np.ndarray, int]:
    samples = open_samples(Environment.read(root), "train", JOB)
    return decode_sample(next(iter(samples.epoch(None, threading.Event()))), samples.label_map, 2)


def test_a_pair_of_two_sizes_names_both(make_job: JobFactory) -> None:
    root = make_job(train=1)
    Image.new("L", (20, 10)).save(root / "input/data/train_annotation/train-0.png")
    with pytest.raises(ClientError, match=r"train-0\.jpg: the image is 48×40 but its annotation is 20×10"):
        decode(root)


def test_a_damaged_image_is_named(make_job: JobFactory) -> None:
    root = make_job(train=1)
    path = root / "input/data/train/train-0.jpg"
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(ClientError, match=r"train-0\.jpg: .*; replace or remove it"):
        decode(root)


def test_each_channel_has_its_own_label_map(make_job: JobFactory) -> None:
    root = make_job(train=1)
    folder = root / "input/data/label_map"
    folder.mkdir()
    (folder / "train_label_map.json").write_text('{"map": {"0": 1, "1": 0}}')
    environment = Environment.read(root)
    assert open_samples(environment, "train", JOB).label_map.content == {"map": {"0": 1, "1": 0}}
    assert open_samples(environment, "validation", JOB).label_map.content == {"scale": 1}
    _, labels, _ = decode(root)
    expected = np.asarray(Image.open(root / "input/data/train_annotation/train-0.png"))
    assert np.array_equal(labels, np.choose(np.minimum(expected, 2), [1, 0, 255]))


def test_a_picture_without_its_end_mark_is_used_with_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    image, annotation = save(noise(), "JPEG"), save(Image.new("L", (40, 32), 1))
    (tmp_path / "a.jpg").write_bytes(image[:-2])
    (tmp_path / "a.png").write_bytes(annotation[:-12])
    sample = FileSample(tmp_path / "a.jpg", tmp_path / "a.png")
    for _ in range(2):
        decoded, labels, _ = decode_sample(sample, LabelMap(), 2)
        assert (decoded == opened(image)).all() and (labels == 1).all()
    lacks = "image lacks its end mark, but none of its pixels: it is used as it is"
    assert caplog.messages == [
        f"{tmp_path}/a.jpg: the JPEG {lacks}",
        f"annotation of {tmp_path}/a.jpg: the PNG {lacks}",
    ]


def test_what_is_no_image_is_named_with_its_file(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(save(noise(), "WEBP"))
    (tmp_path / "a.png").write_bytes(save(Image.new("L", (40, 32))))
    with pytest.raises(ClientError) as caught:
        decode_sample(FileSample(tmp_path / "a.jpg", tmp_path / "a.png"), LabelMap(), 2)
    assert str(caught.value) == (
        f"{tmp_path}/a.jpg: these bytes are neither a JPEG nor a PNG image, but a WebP image: convert it to JPEG or PNG"
        "; replace or remove it"
    )


def test_a_coloured_annotation_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(save(noise(), "JPEG"))
    (tmp_path / "a.png").write_bytes(save(noise()))
    with pytest.raises(ClientError, match=r"annotation of .*a\.jpg: .* one channel .*: convert colours to class ids"):
        decode_sample(FileSample(tmp_path / "a.jpg", tmp_path / "a.png"), LabelMap(), 2)
