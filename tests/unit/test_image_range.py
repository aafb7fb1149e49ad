"""16-bit images: what the audit reports about them, and one range for training, validation, evaluation and serving."""

from __future__ import annotations

import io
import json
import sys
import threading
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from container.artifact.model_directory import read_image_range
from container.codecs.images import DecodeError, decode_image
from container.codecs.images_16_bit import count_samples
from container.data.loader import Loader
from container.data.samples import open_samples
from container.engines.quantize import read_images
from container.environment import Environment
from container.errors import ClientError
from container.hyperparameters import load
from container.image_range import Range
from container.serving.app import create_app
from container.serving.model_info import describe_model
from container.serving.models import Model, create_model
from local_test import evaluate
from local_test.overlay import draw_overlay
from tests.conftest import JobFactory
from tests.pictures import chunk, exif, png, save
from tests.unit.data.audit.test_audit import audit
from tests.unit.serving.test_serving import SETTINGS, FakeEngine
from tests.unit.test_evaluate import Engine, pack

HEIGHT, WIDTH = 40, 48
RNG = np.random.default_rng(5)


def deep(samples: np.ndarray, alpha: bool = False, before: bytes = b"") -> bytes:
    """A 16-bit PNG of samples (H, W) or (H, W, 3), whose alpha channel is noise."""
    planes = samples.reshape(*samples.shape[:2], -1)
    if alpha:
        planes = np.dstack([planes, RNG.integers(0, 2**16, samples.shape[:2])])
    color = {1: 0, 2: 4, 3: 2, 4: 6}[planes.shape[2]]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in planes)
    return png(samples.shape[1], samples.shape[0], 16, color, rows, before)


def scaled(samples: np.ndarray, low: int, high: int) -> np.ndarray:
    """What the samples are in 8 bits, in float64."""
    share = (np.clip(samples.astype(np.float64), low, high) - low) / (high - low)
    image = np.floor(255 * share + 0.5).astype(np.uint8)
    return image if image.ndim == 3 else np.repeat(image[:, :, None], 3, axis=2)


@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("planes", [(), (3,)])
@pytest.mark.parametrize("image_range", [(0, 4095), (1000, 3000), (0, 65535), (29_000, 29_001), (65_534, 65_535)])
def test_every_mode_is_scaled_by_the_range(alpha: bool, planes: tuple[int, ...], image_range: Range) -> None:
    samples = RNG.integers(0, 2**16, (9, 7, *planes))
    samples[0, 0], samples[0, 1], samples[0, 2] = image_range[0], image_range[1], sum(image_range) // 2
    found = decode_image(deep(samples, alpha), image_range=image_range)
    assert found.dtype == np.uint8 and np.array_equal(found, scaled(samples, *image_range))


def test_without_a_range_samples_keep_their_high_byte() -> None:
    samples = RNG.integers(0, 2**16, (9, 7, 3))
    assert np.array_equal(decode_image(deep(samples)), samples >> 8)


def test_a_range_does_not_change_8_bit_images() -> None:
    for image in (Image.new("RGB", (4, 3), (9, 99, 199)), Image.new("L", (4, 3), 77), Image.new("P", (4, 3))):
        for kind in ("PNG", "JPEG"):
            data = save(image.convert("RGB") if kind == "JPEG" else image, kind)
            assert np.array_equal(decode_image(data, image_range=(0, 4095)), decode_image(data))


def test_a_large_image_is_scaled_in_every_row() -> None:
    samples = RNG.integers(0, 4096, (1500, 1000))
    assert np.array_equal(decode_image(deep(samples), image_range=(0, 4095)), scaled(samples, 0, 4095))


@pytest.mark.parametrize("shape", [(1500, 1000), (1, 2_000_000), (700, 800, 3), (3, 1)])
def test_samples_are_counted_in_every_row(shape: tuple[int, ...]) -> None:
    samples = RNG.integers(0, 2**16, shape).astype(np.uint16)
    assert np.array_equal(count_samples(samples), np.bincount(samples.ravel(), minlength=2**16))


def test_one_large_chunk_and_interlaced_rows_are_read(capfd: pytest.CaptureFixture[str]) -> None:
    """libpng warns about chunks of more than 8 MB."""
    samples = RNG.integers(0, 2**16, (1300, 1200, 3))
    assert np.array_equal(decode_image(deep(samples), image_range=(0, 65535)), scaled(samples, 0, 65535))
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    small = samples[:11, :13]
    rows = b"".join(
        b"\0" + row.astype(">u2").tobytes() for x, y, right, down in passes for row in small[y::down, x::right]
    )
    data = png(13, 11, 16, 2, rows, interlaced=True)
    assert np.array_equal(decode_image(data, image_range=(0, 65535)), scaled(small, 0, 65535))
    assert capfd.readouterr().err == ""


def test_a_scaled_image_is_rotated_by_its_exif_orientation() -> None:
    samples = RNG.integers(0, 4096, (4, 6))
    data = deep(samples, before=chunk(b"eXIf", exif(6)))
    found = decode_image(data, orientation="apply", image_range=(0, 4095))
    assert np.array_equal(found, np.rot90(scaled(samples, 0, 4095), -1))  # 6: a quarter turn to the right


def test_a_truncated_16_bit_image_is_an_error_with_a_range_too() -> None:
    data = deep(RNG.integers(0, 2**16, (30, 30, 3)))
    with pytest.raises(DecodeError, match="truncated"):
        decode_image(data[: len(data) // 2], image_range=(0, 4095))


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("4095,0", r"_image_range '4095,0' is not a range: two integers from 0 to 65535, the lower one first"),
        ("5,5", "_image_range '5,5' is not a range"),
        ("0,65536", "_image_range '0,65536' is not a range"),
        ("4095", "_image_range must be two integers from 0 to 65535, as in 0,4095, not '4095'"),
        ("0,1,2", "_image_range must be two integers"),
        ("-1,7", "_image_range must be two integers"),
        ("auto", "_image_range must be two integers"),
    ],
)
def test_invalid_image_range_is_rejected(make_job: JobFactory, value: str, reason: str) -> None:
    raw = Environment.read(make_job(_image_range=value)).hyperparameters
    with pytest.raises(ClientError) as caught:
        load(raw)
    assert reason in str(caught.value) and len(caught.value.details) == 1


@pytest.mark.parametrize("value", ["0,4095", " 0 , 4095 ", "[0, 4095]", '"0,4095"', [0, 4095]])
def test_every_convention_gives_the_range(make_job: JobFactory, value: object) -> None:
    raw = Environment.read(make_job(_image_range=value)).hyperparameters
    assert load(raw).scaled_range == (0, 4095)


def job(make_job: JobFactory, low: int, high: int, planes: tuple[int, ...] = (), **changes: object) -> Path:
    """A job whose images have 16 bits, with values from `low` to `high`."""
    root = make_job(train=4, validation=2, **changes)
    for path in sorted((root / "input/data").glob("*/*.jpg")):
        values = RNG.integers(low, high + 1, (HEIGHT, WIDTH, *planes))
        values[0, 0], values[0, 1] = low, high
        path.with_suffix(".png").write_bytes(deep(values))
        path.unlink()
    return root


def warning(root: Path) -> str:
    """The audit's warning about 16-bit images, which others must not follow."""
    found = [fault["message"] for fault in audit(root)["warnings"] if fault["kind"] == "range"]
    assert len(found) < 2
    return found[0] if found else ""


def test_images_that_lose_their_gray_levels_are_named_with_the_range_to_set(make_job: JobFactory) -> None:
    root = job(make_job, 300, 3700)
    message = warning(root)
    assert message.startswith(
        "6 of 6 images of channels train and validation have 16 bits, with values from 300 to 3700, "
    )
    # 300 is in high byte 1, 3700 in high byte 14
    assert message.endswith(
        " gray levels. The model sees 14 levels of them, because 16-bit values keep their high byte. Set "
        "_image_range=0,4095 to scale this range to 8 bits, in the job and on the endpoint."
    )
    (details,) = [fault["details"] for fault in audit(root)["warnings"] if fault["kind"] == "range"]
    assert len(details) == 6 and details[0].endswith("train/train-0.png")


@pytest.mark.parametrize(
    ("low", "high", "suggested"),
    [
        (0, 1023, "0,1023"),  # 10 bits
        (0, 16383, "0,16383"),  # 14 bits
        (0, 255, "0,255"),  # 8 bits, stored in 16
        (29_000, 31_000, "29000,31000"),  # a thermal camera
        (100, 20_000, "0,32767"),
        (0, 65_535, None),
        (0, 40_000, None),
    ],
)
@pytest.mark.parametrize("planes", [(), (3,)])
def test_the_suggested_range_silences_the_warning(
    make_job: JobFactory, low: int, high: int, suggested: str | None, planes: tuple[int, ...]
) -> None:
    message = warning(job(make_job, low, high, planes))
    if suggested is None:
        assert message == ""
        return
    found = message.split("_image_range=")[1].split(" ")[0]
    wanted, given = ([int(part) for part in text.split(",")] for text in (suggested, found))
    assert np.allclose(wanted, given, atol=2)  # the most extreme of 10,000 values may be outside
    assert warning(job(make_job, low, high, planes, _image_range=found)) == ""


def test_pixels_without_data_and_hot_pixels_do_not_decide(make_job: JobFactory) -> None:
    root = job(make_job, 29_000, 31_000)
    for path in sorted((root / "input/data").glob("*/*.png")):
        if "annotation" not in path.parent.name:
            values = np.asarray(Image.open(path)).astype(np.int64)
            values[:, :20], values[3, 3] = 0, 65_535
            path.write_bytes(deep(values))
    low, high = (int(part) for part in warning(root).split("_image_range=")[1].split(" ")[0].split(","))
    assert 29_000 <= low < 29_010 and 30_990 < high <= 31_000


def test_images_with_12_and_16_bit_samples_in_one_channel_are_reported(make_job: JobFactory) -> None:
    root = make_job(train=6, validation=2)
    for number, path in enumerate(sorted((root / "input/data").glob("*/*.jpg"))):
        largest = 4095 if path.parent.name == "train" and number % 2 else 65_534
        values = RNG.integers(0, largest + 1, (HEIGHT, WIDTH))
        values[0, 0], values[0, 1] = largest, 65_535  # 65535 can mean that a pixel has no data
        path.with_suffix(".png").write_bytes(deep(values))
        path.unlink()
    assert warning(root) == (
        "channel train: 3 of the 16-bit images seem to have 12-bit samples (at most 4095), and 3 seem to have 16-bit "
        "samples (at most 65535). The model sees the same objects at two brightness levels. Scale the images of all "
        "channels to one range."
    )


@pytest.mark.parametrize(
    "largest", [(4000, 7000, 16_000, 65_000), (30_000, 65_000), (200, 40_000), (4000, 65_000, 65_000)]
)
def test_images_of_various_brightness_are_not_reported(make_job: JobFactory, largest: tuple[int, ...]) -> None:
    root = make_job(train=len(largest) + (len(largest) == 2) * 2, validation=1)
    for number, path in enumerate(sorted((root / "input/data").glob("*/*.jpg"))):
        limit = largest[number % len(largest)] if path.parent.name == "train" else 65_534
        values = RNG.integers(0, limit + 1, (HEIGHT, WIDTH))
        values[0, 0] = limit
        path.with_suffix(".png").write_bytes(deep(values))
        path.unlink()
    assert "seem to have" not in warning(root)


def test_a_range_that_clips_or_has_no_effect_is_reported(make_job: JobFactory) -> None:
    assert (
        "% of the values are outside of _image_range=0,2000 and are clipped. To keep them, set _image_range=0,4095."
        in (warning(job(make_job, 0, 4000, _image_range="0,2000")))
    )
    assert "The model sees 17 levels of them, with _image_range=0,65535. Set _image_range=0,4095 to" in (
        warning(job(make_job, 0, 4000, _image_range="0,65535"))
    )


def test_images_of_8_bits_among_those_that_are_scaled_are_reported(make_job: JobFactory) -> None:
    root = job(make_job, 0, 4095, _image_range="0,4095")
    next((root / "input/data/train").glob("*.png")).write_bytes(save(Image.new("L", (WIDTH, HEIGHT), 9)))
    message = warning(root)
    assert message.startswith("5 of 6 images of channels train and validation have 16 bits") and "the others" in message


def test_a_channel_that_is_darker_than_the_other_is_named(make_job: JobFactory) -> None:
    root = job(make_job, 300, 3700)
    for path in (root / "input/data/validation").glob("*.png"):
        path.write_bytes(deep(np.linspace(0, 65535, HEIGHT * WIDTH).round().astype(np.int64).reshape(HEIGHT, WIDTH)))
    message = warning(root)
    assert "with values from 0 to 65535, but the 16-bit images of channel train use a small part of this" in message
    levels = len(set(range(300 >> 8, (3700 >> 8) + 1)))
    assert f"of which the model sees {levels} levels. Scale the images of all channels to one range." in message


def test_a_range_without_16_bit_images_has_no_effect(make_job: JobFactory) -> None:
    message = "_image_range=0,4095 has no effect: no image of the channels has 16 bits. Remove it."
    assert warning(make_job(_image_range="0,4095")) == message
    assert warning(make_job()) == ""


def test_a_fast_audit_reports_the_range_of_its_sample(make_job: JobFactory) -> None:
    assert "Set _image_range=0,4095" in warning(job(make_job, 300, 3700, _audit="fast"))


def test_dark_16_bit_images_are_not_the_same(make_job: JobFactory) -> None:
    root = job(make_job, 0, 255)  # their high bytes are all 0
    assert [fault for fault in audit(root)["warnings"] if fault["kind"] == "repeated"] == []
    source = next((root / "input/data/train").glob("*.png"))
    next((root / "input/data/validation").glob("*.png")).write_bytes(source.read_bytes())
    assert [len(fault["details"]) for fault in audit(root)["warnings"] if fault["kind"] == "repeated"] == [1]


def test_training_validation_and_evaluation_use_the_range(make_job: JobFactory) -> None:
    root = job(make_job, 0, 4095, _image_range="0,4095")
    environment = Environment.read(root)
    hyperparameters = load(environment.hyperparameters)
    for channel in ("train", "validation"):
        for path in (root / f"input/data/{channel}").iterdir():
            path.write_bytes(deep(np.full((HEIGHT, WIDTH), 2048)))  # 2048 / 4095 * 255 = 127.5
        loader = Loader(open_samples(environment, channel, hyperparameters), hyperparameters, threading.Event())
        images = [picture.image for picture in loader.full_images(lambda pixels: None, 1, threading.Event())]
        assert len(images) == (4 if channel == "train" else 2) and {*np.unique(images)} == {128}
        (batch, *_) = loader.validation_epoch()
        assert {*np.unique(batch.images)} == {128}


def test_the_server_uses_the_range_of_the_model() -> None:
    """The engine predicts class 1 above 127."""
    samples = np.array([[0, 2000, 2100, 4095, 9999]])
    for image_range, expected in (
        ((0, 4095), [0, 0, 1, 1, 1]),
        (None, [0, 0, 0, 0, 0]),
        ((9000, 9999), [0, 0, 0, 0, 1]),
    ):
        model: Future[Model] = Future()
        model.set_result(create_model(FakeEngine(), {}, {}, image_range))
        client = create_app(model, SETTINGS).test_client()
        response = client.post("/invocations", data=deep(samples), content_type="image/png")
        assert np.asarray(Image.open(io.BytesIO(response.data))).tolist() == [expected]
        described = describe_model(model.result().info, SETTINGS)
        assert described.get("image_range") == (list(image_range) if image_range else None)


def test_the_range_is_read_from_the_model_artifacts(tmp_path: Path) -> None:
    (tmp_path / "model_best.params").write_bytes(b"weights")
    for content, expected in (
        ({"_image_range": "0,4095"}, (0, 4095)),
        ({"_image_range": "[1000, 3000]"}, (1000, 3000)),
        ({}, None),
    ):
        (tmp_path / "hyperparams.json").write_text(json.dumps({"num_classes": "2", **content}))
        assert read_image_range(tmp_path) == expected
    for value in ("4095,0", "x", 7):
        (tmp_path / "hyperparams.json").write_text(json.dumps({"num_classes": "2", "_image_range": value}))
        with pytest.raises(ClientError, match="does not describe a model"):
            read_image_range(tmp_path)


def test_int8_calibration_uses_the_range(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(deep(np.full((5, 4), 2048)))
    (image,) = read_images(tmp_path, 1, (0, 4095))
    assert {*np.unique(image)} == {128}


def test_an_evaluation_shows_each_model_its_own_range(
    make_job: JobFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = job(make_job, 0, 4095)
    for path in (root / "input/data/validation").iterdir():
        labels = np.asarray(Image.open(root / "input/data/validation_annotation" / path.name))
        path.write_bytes(deep(np.where(labels == 1, 3000, 500)))
    models = []
    for name, content in (("scaled", {"_image_range": "0,4095"}), ("plain", {})):
        archive = tmp_path / f"{name}.tar.d"
        pack(tmp_path / f"{name}.tar.gz", bound=100)
        settings = archive / "hyperparams.json"
        settings.write_text(json.dumps({**json.loads(settings.read_text()), **content}))
        models.append(str(archive))

    monkeypatch.setattr("container.engines.openvino.OpenVinoEngine", Engine)
    data, out = root / "input/data", tmp_path / "out"
    command = [models[0], data / "validation", data / "validation_annotation", "--against", models[1], "--output", out]
    monkeypatch.setattr(sys, "argv", ["evaluate", *map(str, command)])
    evaluate.main()
    first, second = json.loads((out / "report.json").read_text())["models"]
    assert first["mIOU"] == 1 and second["mIOU"] < 0.5


def test_an_overlay_of_16_bit_gray_is_not_white() -> None:
    photo = Image.open(io.BytesIO(deep(np.tile(np.arange(480) * 8, (40, 1)))))
    found = np.asarray(draw_overlay(photo, Image.new("L", (480, 40))))[:40]
    assert found[:, 0].max() < 5 and found[:, -1].min() > 250 and 120 < found[:, 240].mean() < 135
