"""Images that training shows at another scale than inference are reported before training, with numbers and a fix."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from container.codecs.images import Annotation
from container.data.audit.audit import Audit
from container.data.audit.scale import find_scale, padding_share
from container.data.audit.statistics import ChannelStatistics, PairInfo
from container.data.augment import random_crop
from container.data.labels.label_maps import LabelMap
from container.data.samples import FileSamples
from container.hyperparameters import Hyperparameters, load
from container.training.report.page import render_page
from local_test.demo_data import HYPERPARAMETERS
from tests.conftest import JobFactory
from tests.unit.data.audit.test_audit import audit
from tests.unit.serving.test_page import Page, content

Size = tuple[int, int]  # height, width


@pytest.fixture
def scale(make_job: JobFactory, tmp_path: Path) -> Callable[..., list[str]]:
    """Return a function that audits a job with images of these sizes, and returns the warnings about scale and size."""

    def find(sizes: Sequence[Size], **changes: Any) -> list[str]:
        rng = np.random.default_rng(0)
        for channel in ("train", "validation"):
            for folder in (channel, f"{channel}_annotation"):
                (tmp_path / "input/data" / folder).mkdir(parents=True, exist_ok=True)
            for number, (height, width) in enumerate(sizes):
                labels = np.zeros((height, width), np.uint8)
                labels[: height // 2, : width // 2] = 1
                image = rng.integers(0, 255, (height // 4 + 1, width // 4 + 1, 3), np.uint8).repeat(4, 0).repeat(4, 1)
                data = tmp_path / "input/data"
                Image.fromarray(image[:height, :width]).save(data / channel / f"{channel}{number}.png")
                Image.fromarray(labels).save(data / f"{channel}_annotation/{channel}{number}.png")
        root = make_job(0, 0, **{"num_training_samples": str(len(sizes)), **changes})
        found = audit(root)["warnings"]
        return [fault["message"] for fault in found if fault["kind"] in ("scale", "padding", "small")]

    return find


def test_images_far_larger_than_base_size_are_reported(scale: Callable[..., list[str]]) -> None:
    (message,) = scale([(480, 640)] * 2, base_size="64", crop_size="64")
    # 64 × 0.5 / 640 = 0.05, 64 × 2 / 640 = 0.2
    assert message.startswith(
        "channel train: training scales the images (long side 640 pixels) by 0.05 to 0.2, because"
    )
    assert "Train with base_size=640 (a crop then covers 1.3% of an image" in message  # 64 × 64 of 640 × 480
    assert "or scale these images to a long side of about 64 pixels for training and inference" in message


def test_tiles_far_smaller_than_base_size_are_reported_with_a_crop_that_fits(scale: Callable[..., list[str]]) -> None:
    (message,) = scale([(64, 64)] * 2, base_size="520", crop_size="64")
    # 520 × 0.5 / 64 = 4.06, 520 × 2 / 64 = 16.25
    assert "(long side 64 pixels) by 4.1 to 16, because base_size is 520" in message
    assert message.endswith("0.0% of a training crop is padding. Train with base_size=64")
    train, validation = scale([(64, 64)] * 2, base_size="520", crop_size="240")
    assert validation.endswith("Train with base_size=64 and crop_size=64") and train.startswith("channel validation: 2")


def test_portrait_images_have_their_height_scaled(scale: Callable[..., list[str]]) -> None:
    (message,) = scale([(640, 200)] * 2, base_size="64", crop_size="32")
    assert "long side 640 pixels) by 0.05 to 0.2" in message and "base_size=640" in message


def test_one_giant_among_small_images_is_named(scale: Callable[..., list[str]]) -> None:
    (message,) = scale([(100, 120)] * 5 + [(1000, 1200)], base_size="120", crop_size="48")
    # 1,200,000 of 1,260,000 pixels
    assert "training scales 1 of 6 images (long side 1200 pixels, 95.2% of all pixels) by 0.05 to 0.2" in message
    remedy = "Scale these images to a long side of about 120 pixels for training and inference, or cut them into tiles"
    assert remedy in message and "Train with" not in message  # base_size fits the other five


def test_sizes_that_no_base_size_fits_get_the_best_one(scale: Callable[..., list[str]]) -> None:
    (message,) = scale([(30, 40)] * 4 + [(300, 400)] * 2, base_size="400", crop_size="24")
    assert "training scales 4 of 6 images (long side 40 pixels" in message
    assert "Train with base_size=40" in message
    assert "2 images then remain outside of the range: scale these images to a long side of about 40 pixels" in message


@pytest.mark.parametrize(
    ("size", "changes"),
    [
        ((128, 160), {"base_size": str(HYPERPARAMETERS["base_size"]), "crop_size": str(HYPERPARAMETERS["crop_size"])}),
        ((360, 480), {"base_size": "520", "crop_size": "240"}),  # CamVid in the built-in's defaults
        ((720, 1280), {"base_size": "520", "crop_size": "240"}),  # scaled by 0.81 at most: near enough
        ((60, 80), {"base_size": "80", "crop_size": "32", "_augmentation": '{"scale": [0.9, 1.1]}'}),
    ],
)
def test_a_job_whose_training_shows_the_images_own_size_has_no_warning(
    scale: Callable[..., list[str]], size: Size, changes: dict[str, str]
) -> None:
    assert scale([size] * 2, **changes) == []


def test_the_range_of_the_augmentation_counts(scale: Callable[..., list[str]]) -> None:
    (message,) = scale([(60, 80)] * 2, base_size="40", crop_size="24", _augmentation='{"scale": [1, 1.2]}')
    assert "by 0.5 to 0.6, because base_size is 40" in message
    best = int(message.split("Train with base_size=")[1].split(" ")[0].rstrip(",."))
    assert best <= 80 <= 1.2 * best


def test_crops_that_are_mostly_padding_are_reported(scale: Callable[..., list[str]]) -> None:
    (message,) = scale([(80, 80)] * 2, base_size="40", crop_size="80")
    # 1 less the mean of (u / 2)² from 0.5 to 2, which is (8 − 0.125) / 3 / 1.5 / 4 = 0.4375
    assert message.startswith("channel train: 56.")
    assert message.endswith(
        "% of a training crop is padding, because base_size=40 scales the long side of an image to 20 to 80 pixels, "
        "and crop_size is 80. Train with crop_size=40"
    )


@pytest.mark.parametrize(("size", "base", "crop"), [((48, 64), 64, 64), ((64, 64), 64, 64), ((90, 40), 50, 80)])
def test_the_padding_is_that_of_the_crops(size: Size, base: int, crop: int) -> None:
    rng = np.random.default_rng(1)
    image, labels = np.zeros((*size, 3), np.uint8), np.zeros(size, np.uint8)
    padded = [(random_crop(image, labels, base, crop, rng)[1] == 255).mean() for _ in range(600)]
    assert padding_share({size: 3}, base, crop, (0.5, 2)) == pytest.approx(np.mean(padded), abs=0.03)


def test_square_images_as_large_as_base_and_crop_are_padded_by_an_integral() -> None:
    # of 1 − u² from 0.5 to 1, over the range of 1.5: (0.5 − 0.875 / 3) / 1.5
    assert padding_share({(64, 64): 1}, 64, 64, (0.5, 2)) == pytest.approx(0.1389, abs=2e-4)


def test_a_sample_of_files_is_enough_to_judge_the_scale(scale: Callable[..., list[str]]) -> None:
    (message,) = scale([(48, 64)] * 4, base_size="520", crop_size="24", _audit="fast")
    assert "Train with base_size=64" in message


def test_the_first_images_of_a_stream_show_the_scale(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    job = load({"num_classes": 2, "num_training_samples": 100, "crop_size": 64})
    label_map = LabelMap()
    audited = Audit(job, {"train": FileSamples("train", [], label_map)}, tmp_path)
    assert audited.begin("train")
    labels = np.zeros((32, 32), np.uint8)
    labels[:9] = 1
    seen = PairInfo("image", 32, 32, label_map.interpret(Annotation(labels), 2))
    for _ in range(63):
        audited.watch("train", seen)
    assert not caplog.messages
    for _ in range(37):
        audited.watch("train", seen)
    audited.end("train")
    told = [message for message in caplog.messages if "Train with base_size=32" in message]
    assert len(told) == 1
    written = json.loads((tmp_path / "audit.json").read_text())["warnings"]
    assert "scale" in {fault["kind"] for fault in written}


def test_the_page_shows_all_of_the_longest_message(scale: Callable[..., list[str]]) -> None:
    sizes = [(300, 600)] * 3 + [(24, 26)]
    (message,) = scale(sizes, base_size="26", crop_size="24")
    assert "Train with base_size=600 (a crop then" in message and "1 image then remains outside" in message
    audit = {"errors": [], "warnings": [{"kind": "scale", "message": message, "details": []}], "channels": {}}
    text = " ".join(Page(render_page(content(audit=audit))).text.split())
    assert text.count(message) == 2  # the verdict, and the audit


def found(sizes: dict[Size, int], job: Hyperparameters) -> list[str]:
    """Judge a channel in which images of these sizes were seen."""
    findings = ChannelStatistics("train", LabelMap(), job.num_classes, job.crop)
    reading = LabelMap().interpret(Annotation(np.zeros((4, 4), np.uint8)), 2)
    for (height, width), count in sizes.items():
        for number in range(count):
            findings.add(PairInfo(str(number), height, width, reading))
    return [fault.message for fault in find_scale(findings, job)]


@pytest.mark.parametrize("scales", [None, [0.5, 1], [1, 1], [1, 4]])
@pytest.mark.parametrize("base", [17, 64, 300, 520, 4000])
@pytest.mark.parametrize("crop", [17, 64, 240, 1000])
def test_what_is_recommended_is_not_set_already_and_removes_the_warning(
    base: int, crop: int, scales: list[float] | None
) -> None:
    options = {"_augmentation": {"scale": scales}} if scales else {}
    required = {"num_classes": 2, "num_training_samples": 4, **options}
    for sizes in ({(48, 64): 3}, {(2000, 1500): 3}, {(500, 20): 3}, {(48, 64): 5, (600, 800): 4}, {(9, 9): 2}):
        messages = found(sizes, load({**required, "base_size": base, "crop_size": crop}))
        if not (remedies := re.findall(r"(?:Train with|and) (base_size|crop_size)=(\d+)", " ".join(messages))):
            continue
        better = {"base_size": base, "crop_size": crop, **{name: int(value) for name, value in remedies}}
        assert better != {"base_size": base, "crop_size": crop}
        left = " ".join(found(sizes, load({**required, **better})))
        assert "Train with" not in left, (sizes, messages, left)
        if len(sizes) == 1 and max(max(sizes)) > 17:  # base_size is more than 16
            assert left == ""
