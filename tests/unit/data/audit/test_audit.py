"""The audit: what is wrong with the data is told together, before anything is trained."""

from __future__ import annotations

import io
import json
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from container.data.audit import duplicates
from container.data.audit.audit import Audit
from container.data.labels.class_counts import ClassCounts
from container.data.loader import Loader
from container.data.samples import Samples, open_samples
from container.environment import Environment
from container.errors import ClientError
from container.hyperparameters import Hyperparameters, load
from container.training import run
from tests.conftest import JobFactory

CHANNELS = ("train", "validation")


def audit(root: Path) -> dict[str, Any]:
    """Do what a job does until it would train; returns audit.json."""
    environment = Environment.read(root)
    trained: list[object] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "train", lambda *arguments: trained.append(arguments))
        try:
            run.run(environment, threading.Event())
        except ClientError:
            assert not trained
            raise
    assert trained
    return report(root)


def report(root: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((root / "output/data/audit.json").read_text())
    return found


def refusal(root: Path) -> ClientError:
    with pytest.raises(ClientError) as caught:
        audit(root)
    found = report(root)
    assert found["errors"]
    assert str(caught.value).startswith(found["errors"][0]["message"])
    return caught.value


def repaint(root: Path, channel: str, paint: Callable[[np.ndarray], np.ndarray]) -> None:
    """Redraw the channel's annotations."""
    for path in (root / f"input/data/{channel}_annotation").iterdir():
        Image.fromarray(paint(np.asarray(Image.open(path)))).save(path)


def halves(left: int, right: int) -> Callable[[np.ndarray], np.ndarray]:
    """Paint one value on the left quarter, another on the rest."""

    def paint(pixels: np.ndarray) -> np.ndarray:
        painted = np.full(pixels.shape, right, np.uint8)
        painted[:, : pixels.shape[1] // 4] = left
        return painted

    return paint


def label_maps(root: Path, content: object) -> None:
    folder = root / "input/data/label_map"
    folder.mkdir()
    for channel in CHANNELS:
        (folder / f"{channel}_label_map.json").write_text(json.dumps(content))


def warnings(root: Path) -> dict[str, dict[str, Any]]:
    found = audit(root)
    assert found["errors"] == []
    return {f"{fault['kind']} {fault['message'].split(':')[0]}": fault for fault in found["warnings"]}


def test_binary_masks_are_rejected_with_a_suggested_map(make_job: JobFactory) -> None:
    root = make_job()
    for channel in CHANNELS:
        repaint(root, channel, halves(0, 255))
    assert str(refusal(root)) == (
        "All labeled pixels of channel train_annotation have one class, 0, so the model cannot learn anything. "
        "The pixel values are 255 (75.0%, ignored), 0 (25.0%). If each of them is a class, put "
        '{"map": {"0": 0, "1": 255}} into label_map/<channel>_label_map.json for each of the channels train, '
        "validation (and test)"
    )
    label_maps(root, {"map": {"0": 0, "1": 255}})
    classes = audit(root)["channels"]["train"]["classes"]
    assert [(entry["pixels"], entry["share"], entry["images"]) for entry in classes] == [
        (5 * 480, 0.25, 5),
        (5 * 1440, 0.75, 5),
    ]


def test_label_map_without_a_value_that_occurs_is_rejected(make_job: JobFactory) -> None:
    root = make_job(num_classes="80")
    for channel in CHANNELS:
        repaint(root, channel, halves(38, 75))
    label_maps(root, {"map": {"38": 0, "75": 1}})
    error = refusal(root)
    assert (
        "train_label_map.json contains no pixel value that occurs in the annotations of channel train, so all"
        in str(error)
    )
    assert "The annotations contain 75 (75.0%, ignored), 38 (25.0%, ignored). The keys must be class IDs" in str(error)
    assert '{"map": {"0": 38, "1": 75}} (1 more error below and in output/data/audit.json)' in error.message
    assert [fault["kind"] for fault in report(root)["errors"]] == ["label map", "label map"]


def test_invalid_class_ids_are_counted_with_a_suggested_map(make_job: JobFactory) -> None:
    root = make_job(train=2, validation=1)
    for channel in CHANNELS:
        repaint(root, channel, halves(0, 128))
    error = refusal(root)
    assert error.message.startswith(
        "channel train has 2 annotations with pixel values that are not valid class IDs (num_classes is 2): 128 "
        "(75.0%). Increase num_classes, set such pixels to 255 (ignore), or add a label map such as "
        '{"map": {"0": 0, "1": 128}}'
    )
    assert error.details[0] == (
        f"annotation of {root}/input/data/validation/validation-0.jpg: pixel value 128 is not a valid class ID "
        "(num_classes is 2). Increase num_classes, set such pixels to 255 (ignore), or add a label map such as "
        '{"map": {"0": 0, "1": 128}}'
    )


def test_color_masks_are_refused_with_the_map_to_paste(make_job: JobFactory) -> None:
    root = make_job()
    for channel in CHANNELS:
        repaint(root, channel, lambda pixels: halves(0, 1)(pixels)[:, :, None] * np.array([128, 64, 128], np.uint8))
    error = refusal(root)
    assert "channel train has 5 annotations in colors, not class IDs. Put " in str(error)
    colors = {"#804080": 0, "#000000": 1}
    assert json.dumps({"colors": colors}) in str(error)
    label_maps(root, {"colors": {"#804080": 1, "#000000": 0}, "names": ["ground", "road"]})
    classes = audit(root)["channels"]["train"]["classes"]
    assert [(entry["name"], entry["share"]) for entry in classes] == [("ground", 0.25), ("road", 0.75)]


def test_all_errors_are_reported_together(make_job: JobFactory) -> None:
    root = make_job(train=6, validation=3)
    data = root / "input/data"
    (data / "train/train-0.jpg").write_bytes((data / "train/train-0.jpg").read_bytes()[:200])
    (data / "train/train-1.jpg").write_bytes(b"<html>not found</html>")
    Image.new("L", (9, 9)).save(data / "train_annotation/train-2.png")
    Image.fromarray(np.full((40, 48), 7, np.uint8)).save(data / "train_annotation/train-3.png")
    repaint(root, "validation", halves(255, 255))
    error = refusal(root)
    assert error.message == (
        "channel train has 2 pairs that cannot be read. Replace or remove them (3 more errors below and in "
        "output/data/audit.json)"
    )
    assert [detail.split(":")[0] for detail in error.details[:3]] == [
        f"annotation of {data}/train/train-2.jpg",
        f"annotation of {data}/train/train-3.jpg",
        "No pixel of channel validation_annotation is labeled, so an evaluation is not possible. The pixel values are "
        "255 (100.0%, ignored)",
    ]
    told = "\n".join(error.details)
    assert "train-0.jpg: the JPEG image is corrupt" in told
    assert "train-1.jpg: this is neither a JPEG nor a PNG image, but an HTML page" in told
    assert [fault["kind"] for fault in report(root)["errors"]] == ["unreadable", "size", "label", "classes"]


def test_unpaired_files_of_every_channel_are_in_the_report(make_job: JobFactory) -> None:
    root = make_job()
    for channel in CHANNELS:
        (root / f"input/data/{channel}_annotation/{channel}-0.png").unlink()
    refusal(root)
    assert [fault["details"] for fault in report(root)["errors"]] == [
        [f"{root}/input/data/{channel}/{channel}-0.jpg has no annotation"] for channel in CHANNELS
    ]


def test_unusable_pairs_up_to_the_limit_are_skipped(make_job: JobFactory) -> None:
    root = make_job(_max_bad_records="1")
    broken = root / "input/data/train/train-0.jpg"
    broken.write_bytes(b"GIF89a")
    (fault,) = (fault for name, fault in warnings(root).items() if name.startswith("unreadable"))
    assert fault["message"].startswith(f"{broken}: ")
    assert fault["message"].endswith("Replace or remove it. 1 pair is skipped (_max_bad_records=1)")
    assert report(root)["channels"]["train"]["unusable"] == 1
    (root / "input/data/train/train-1.jpg").write_bytes(b"GIF89a")
    assert refusal(root).message == "channel train has 2 pairs that cannot be read. Replace or remove them"


def test_missing_and_rare_classes_are_reported(make_job: JobFactory) -> None:
    root = make_job(num_classes="5")
    label_maps(root, {"scale": 1, "names": ["ground", "square", "pole", "sign", "sky"]})
    first = root / "input/data/train_annotation/train-0.png"
    pixels = np.array(Image.open(first))
    pixels[20, 20] = 3
    Image.fromarray(pixels).save(first)
    repaint(root, "validation", halves(2, 0))
    told = [fault["message"] for fault in warnings(root).values()]
    assert any(
        message.startswith("class 3 (sign) has 0.01% of the labeled pixels of channel train, in 1 of 5 images")
        for message in told
    )
    assert any(
        message.startswith("channel train has no pixels of class 2 (pole), which the validation") for message in told
    )
    assert "no annotation has pixels of class 4 (sky). Make sure that num_classes is correct" in told


def test_annotations_without_labels_are_listed(make_job: JobFactory) -> None:
    root = make_job()
    data = root / "input/data"
    Image.fromarray(np.full((40, 48), 255, np.uint8)).save(data / "train_annotation/train-0.png")
    Image.fromarray(halves(0, 255)(np.zeros((40, 48)))).save(data / "train_annotation/train-1.png")
    found = warnings(root)
    assert found["unlabelled channel train"]["details"] == [f"{data}/train/train-0.jpg"]
    assert found["ignored channel train"]["details"] == [f"{data}/train/train-1.jpg"]


def test_pixels_without_a_map_entry_are_counted(make_job: JobFactory) -> None:
    root = make_job(num_classes="2")
    for channel in CHANNELS:
        repaint(root, channel, lambda pixels: np.where(halves(0, 1)(pixels) > pixels, 7, pixels).astype(np.uint8))
    label_maps(root, {"map": {"0": 0, "1": 1}})
    assert "does not contain 7 (" in warnings(root)["unnamed channel train"]["message"]


def test_scale_that_turns_255_into_a_class_is_reported(make_job: JobFactory) -> None:
    root = make_job()
    for channel in CHANNELS:
        repaint(root, channel, halves(0, 255))
    label_maps(root, {"scale": 255})
    assert "turns pixel value 255 into a class ID" in warnings(root)["void channel train"]["message"]


def test_palettes_that_contradict_each_other_are_named(make_job: JobFactory) -> None:
    root = make_job(train=3)
    for number, colors in enumerate(([0, 0, 0, 255, 0, 0], [0, 0, 0, 255, 0, 0], [0, 0, 0, 0, 0, 255])):
        path = root / f"input/data/train_annotation/train-{number}.png"
        image = Image.fromarray(np.minimum(np.asarray(Image.open(path)), 1))
        image.putpalette(colors)
        image.save(path)
    fault = warnings(root)["palette channel train"]
    assert len(fault["details"]) in (1, 2)  # which of them came first, threads decide
    assert "1 is #" in fault["message"]


def turned(path: Path, orientation: int) -> None:
    image = Image.open(path)
    exif = Image.Exif()
    exif[0x112] = orientation
    image.save(path, exif=exif)


def test_photographs_with_an_orientation_are_counted(make_job: JobFactory) -> None:
    root = make_job()
    data = root / "input/data"
    turned(data / "train/train-0.jpg", 3)
    turned(data / "train/train-1.jpg", 6)
    path = data / "train_annotation/train-1.png"
    Image.open(path).transpose(Image.Transpose.ROTATE_270).save(path)
    found = warnings(root)
    assert found["orientation channel train"]["details"] == [f"{data}/train/train-0.jpg"]
    assert "set _exif_orientation=apply" in found["orientation channel train"]["message"]
    assert found["turned channel train"]["details"] == [f"{data}/train/train-1.jpg"]


def test_same_image_in_two_channels_is_reported_for_all_file_types(make_job: JobFactory) -> None:
    root = make_job(train=4, validation=4)
    data = root / "input/data"
    first = (data / "train/train-0.jpg").read_bytes()
    (data / "validation/validation-0.jpg").write_bytes(first)
    (data / "validation/validation-1.jpg").write_bytes(
        first[:2] + b"\xff\xfe\x00\x06note" + first[2:]
    )  # with a comment
    Image.open(data / "train/train-0.jpg").save(data / "validation/validation-2.png")  # as another format
    (data / "validation/validation-2.jpg").unlink()
    fault = next(fault for name, fault in warnings(root).items() if name.startswith("repeated"))
    assert fault["message"].startswith("3 images of channel validation have the same pixels as images of channel train")
    assert fault["details"] == [
        f"{data}/validation/validation-{name} is {data}/train/train-0.jpg" for name in ("0.jpg", "1.jpg", "2.png")
    ]


def test_a_jpeg_that_was_kept_as_png_is_found_too(make_job: JobFactory) -> None:
    root = make_job(train=2, validation=2)
    data = root / "input/data"
    Image.open(data / "validation/validation-1.jpg").save(data / "train/train-0.png")
    (data / "train/train-0.jpg").unlink()
    for channel, name in (("validation", "validation-1"), ("train", "train-0")):
        Image.new("L", (48, 40)).save(data / f"{channel}_annotation/{name}.png")
    fault = next(fault for name, fault in warnings(root).items() if name.startswith("repeated"))
    assert fault["details"] == [f"{data}/validation/validation-1.jpg is {data}/train/train-0.png"]


def test_images_that_only_look_alike_from_afar_are_not_the_same(make_job: JobFactory) -> None:
    root = make_job(train=2, validation=2)
    data = root / "input/data"
    pixels = np.full((40, 48, 3), 128, np.uint8)
    for name, sign in (("train/train-0.jpg", 1), ("validation/validation-0.jpg", -1)):  # equal means of every 8×8 block
        stripes = pixels + np.int16(sign) * np.where(np.arange(48) % 2, 40, -40)[None, :, None].astype(np.int16)
        Image.fromarray(stripes.astype(np.uint8)).save(data / name, quality=95)
    assert not [name for name in warnings(root) if name.startswith("repeated")]


def test_small_images_and_a_wrong_count_are_reported(make_job: JobFactory) -> None:
    root = make_job(crop_size="64", num_training_samples="9")
    found = warnings(root)
    assert found["small channel train"]["message"].startswith("channel train: 5 of 5 images are smaller than the crop")
    assert any("num_training_samples is 9, but channel train has 5 pairs" in name for name in found)


def test_a_jpeg_without_its_end_mark_is_used_with_a_warning(make_job: JobFactory) -> None:
    root = make_job()
    path = root / "input/data/train/train-0.jpg"
    path.write_bytes(path.read_bytes()[:-2])
    (detail,) = warnings(root)["notes channel train"]["details"]
    assert detail.startswith(f"{path}: the JPEG image has no end marker")


def test_the_log_shows_a_table(make_job: JobFactory, caplog: pytest.LogCaptureFixture) -> None:
    root = make_job()
    for channel in CHANNELS:
        repaint(root, channel, halves(0, 1))
    with caplog.at_level(logging.INFO):
        audit(root)
    lines = [record.getMessage() for record in caplog.records]
    start = next(number for number, line in enumerate(lines) if line.startswith("audit (full, "))
    assert lines[start].endswith(f" s): 0 errors, 0 warnings; all details in {root}/output/data/audit.json")
    assert lines[start + 1 : start + 7] == [
        "                    train  validation",
        "  pairs                 5           3",
        "  width × height  48 × 40     48 × 40",
        "  class 0           25.0%       25.0%",
        "  class 1           75.0%       75.0%",
        "  ignored pixels     0.0%        0.0%",
    ]


def test_a_fast_audit_reads_headers_and_leaves_the_rest_to_the_first_pass(make_job: JobFactory) -> None:
    root = make_job(train=12, _audit="fast")
    for channel in CHANNELS:
        repaint(root, channel, halves(0, 255))
    found = audit(root)  # one class only: what a sample lacks, the whole may have
    assert found["errors"] == []
    assert found["channels"]["train"]["mode"] == "fast"
    assert found["channels"]["train"]["opened"] == 2
    Image.new("L", (9, 9)).save(root / "input/data/train_annotation/train-5.png")
    assert "the image has 48×40 pixels, but the annotation has 9×9" in str(refusal(root))


def test_fastfile_is_audited_fast_unless_the_job_says_otherwise(make_job: JobFactory) -> None:
    root = make_job()
    names = [name for channel in CHANNELS for name in (channel, f"{channel}_annotation")]
    config = {name: {"TrainingInputMode": "FastFile"} for name in names}
    (root / "input/config/inputdataconfig.json").write_text(json.dumps(config))
    assert audit(root)["channels"]["train"]["mode"] == "fast"
    make_job(_audit="full")
    assert audit(root)["channels"]["train"]["mode"] == "full"


def opened(root: Path) -> tuple[Hyperparameters, Samples, Audit]:
    """Open the channel train of a job for an audit."""
    environment = Environment.read(root)
    job = load(environment.hyperparameters)
    samples = open_samples(environment, "train", job)
    return job, samples, Audit(job, {"train": samples}, environment.output_data_dir)


def first_pass(root: Path, mode: str = "off") -> Loader:
    """Open the channel train of a job that has been audited so."""
    job, samples, audit = opened(root)
    audit.run(mode, threading.Event())
    return Loader(samples, job, threading.Event(), audit)


def test_first_pass_without_an_audit_reports_errors_at_its_end(make_job: JobFactory) -> None:
    root = make_job(train=5)
    repaint(root, "train", halves(0, 255))
    loader = first_pass(root)
    seen = 0
    with pytest.raises(ClientError, match=r"^All labeled pixels of channel train_annotation have one class, 0"):
        for batch in loader.training_epoch(0):
            seen += len(batch)
    assert seen == 4  # of five, one is left for the next pass
    assert report(root)["channels"]["train"]["opened"] == 5  # but has been looked at


def test_unusable_pairs_of_a_first_pass_are_reported_together(make_job: JobFactory) -> None:
    root = make_job(train=6)
    for number in (1, 4):
        (root / f"input/data/train/train-{number}.jpg").write_bytes(b"RIFF....WEBP")
    with pytest.raises(ClientError, match=r"^channel train has 2 pairs that cannot be read"):
        for _ in first_pass(root).training_epoch(0):
            pass


def test_a_first_pass_without_a_fault_is_not_judged_again(make_job: JobFactory) -> None:
    root = make_job(train=4)
    loader = first_pass(root)
    for epoch in range(2):
        assert sum(len(batch) for batch in loader.training_epoch(epoch)) == 4
    assert report(root)["channels"]["train"]["mode"] == "first pass"


def test_after_a_full_audit_no_pass_is_watched(make_job: JobFactory) -> None:
    root = make_job(train=4)
    for _ in first_pass(root, "full").training_epoch(0):
        pass
    assert report(root)["channels"]["train"]["mode"] == "full"


def test_skipped_pair_is_not_counted(make_job: JobFactory) -> None:
    """Its second class must not hide that there is one only."""
    root = make_job(_max_bad_records="1")
    repaint(root, "train", halves(0, 0))
    path = root / "input/data/train_annotation/train-0.png"
    pixels = halves(0, 1)(np.zeros((40, 48)))
    pixels[0, 0] = 7
    Image.fromarray(pixels).save(path)
    assert "All labeled pixels of channel train_annotation have one class, 0" in str(refusal(root))
    assert report(root)["channels"]["train"]["classes"][1]["pixels"] == 0


def test_channel_without_a_usable_pair_is_rejected(make_job: JobFactory) -> None:
    root = make_job(train=2, _max_bad_records="10")
    for path in (root / "input/data/train").iterdir():
        path.write_bytes(b"{}")
    assert refusal(root).message == (
        "channel train has 2 pairs that cannot be read. Replace or remove them. 2 pairs are skipped "
        "(_max_bad_records=10)"
    )


def test_a_bad_pair_does_not_hide_what_is_wrong_with_the_others(make_job: JobFactory) -> None:
    root = make_job()
    repaint(root, "train", halves(0, 255))
    (root / "input/data/train_annotation/train-0.png").write_bytes(b"junk")
    refusal(root)
    assert [fault["kind"] for fault in report(root)["errors"]] == ["unreadable", "classes"]


def test_one_map_is_suggested_for_all_channels(make_job: JobFactory) -> None:
    root = make_job()
    colors = np.array([[255, 0, 0], [0, 0, 255]], np.uint8)
    repaint(root, "train", lambda pixels: colors[halves(1, 0)(pixels)])
    repaint(root, "validation", lambda pixels: colors[halves(0, 1)(pixels)])
    refusal(root)
    suggested = {fault["message"].split("Put ")[1].split(", with")[0] for fault in report(root)["errors"]}
    assert suggested == {'{"colors": {"#ff0000": 0, "#0000ff": 1}}'}


def test_conflicting_label_maps_are_reported(make_job: JobFactory) -> None:
    root = make_job()
    folder = root / "input/data/label_map"
    folder.mkdir()
    maps = {"train": {"map": {"0": 0, "1": 1}}, "validation": {"map": {"0": 1, "1": 0}}}
    for channel, content in maps.items():
        (folder / f"{channel}_label_map.json").write_text(json.dumps(content))
    assert any(
        fault["message"].startswith("the label maps differ: 1 is label 0 in channel validation, but 1 in channel train")
        for fault in warnings(root).values()
    )
    for channel, names in (("train", ["road", "sky"]), ("validation", ["sky", "road"])):
        (folder / f"{channel}_label_map.json").write_text(json.dumps({"scale": 1, "names": names}))
    assert str(refusal(root)).startswith(f"Class 0 is sky in {folder}/validation_label_map.json, but road in ")


def test_image_that_equals_its_annotation_is_rejected(make_job: JobFactory) -> None:
    root = make_job(train=1)
    (root / "input/data/train/train-0.jpg").unlink()
    annotation = (root / "input/data/train_annotation/train-0.png").read_bytes()
    (root / "input/data/train/train-0.png").write_bytes(annotation)
    assert "train-0.png and its annotation are the same file. Replace it with the input image" in str(refusal(root))


def test_equal_digests_are_compared_once_for_each_image(make_job: JobFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_job(train=8, validation=8)
    decoded: list[bytes] = []
    whole = duplicates.decode_image
    monkeypatch.setattr(duplicates, "decode_image", lambda data: decoded.append(data) or whole(data))
    for channel in CHANNELS:
        for number in range(8):  # all blocks have one mean, but no two pictures are equal
            stripes = np.full((40, 48, 3), 128, np.int16)
            stripes[:, number::8] += 40 if channel == "train" else -40
            path = root / f"input/data/{channel}/{channel}-{number}.png"
            path.with_suffix(".jpg").unlink()
            Image.fromarray(stripes.astype(np.uint8)).save(path.with_suffix(".jpg"), quality=95)
    assert not [name for name in warnings(root) if name.startswith("repeated")]
    assert len(decoded) <= 16


def test_earlier_warnings_are_in_audit_json(make_job: JobFactory) -> None:
    root = make_job()
    (root / "input/data/train/.DS_Store").write_text("")
    assert audit(root)["notes"] == [f"{root}/input/data/train/.DS_Store is not a readable image file"]
    (root / "input/data/validation_annotation").rename(root / "input/data/valid_annotation")
    assert refusal(root).message == "The input channels are not valid"


def test_an_orientation_at_the_end_of_a_png_is_found_by_the_fast_audit(make_job: JobFactory) -> None:
    root = make_job(train=1, _audit="fast")
    (root / "input/data/train/train-0.jpg").unlink()
    pixels = np.random.default_rng(0).integers(0, 255, (64, 96, 3), np.uint8)
    exif = Image.Exif()
    exif[0x112] = 6
    stored = io.BytesIO()
    Image.fromarray(pixels).save(stored, "PNG", exif=exif)
    data = stored.getvalue()
    start = data.index(b"eXIf") - 4
    chunk = data[start : start + 12 + int.from_bytes(data[start : start + 4], "big")]
    moved = data.replace(chunk, b"")
    (root / "input/data/train/train-0.png").write_bytes(moved[:-12] + chunk + moved[-12:])
    Image.fromarray(np.rot90(halves(0, 1)(np.zeros((64, 96))), -1)).save(
        root / "input/data/train_annotation/train-0.png"
    )
    assert audit(root)["errors"] == []


def test_first_pass_with_too_many_unusable_pairs_stops_with_the_errors(make_job: JobFactory) -> None:
    root = make_job(train=130)
    repaint(root, "train", halves(0, 7))
    with pytest.raises(ClientError) as caught:
        for _ in first_pass(root).training_epoch(0):
            pass
    assert caught.value.reason.startswith("ClientError: channel train has 1")
    assert "annotations with pixel values that are not valid class IDs (num_classes is 2): 7 (75.0%)" in str(
        caught.value
    )
    assert report(root)["channels"]["train"]["mode"] == "first pass, given up"


def test_file_deleted_after_the_audit_is_a_client_error(make_job: JobFactory) -> None:
    root = make_job(train=4)
    loader = first_pass(root, "full")
    (root / "input/data/train/train-1.jpg").unlink()
    with pytest.raises(ClientError) as caught:
        for _ in loader.training_epoch(0):
            pass
    assert caught.value.reason == (
        f"ClientError: {root}/input/data/train/train-1.jpg cannot be read: No such file or directory. Do not "
        "change the data while the job runs"
    )


def test_channel_of_ignored_pixels_gets_no_suggested_map(make_job: JobFactory) -> None:
    root = make_job()
    repaint(root, "validation", halves(255, 255))
    assert str(refusal(root)) == (
        "No pixel of channel validation_annotation is labeled, so an evaluation is not possible. The pixel values are "
        "255 (100.0%, ignored)"
    )


def test_what_a_pass_carries_over_from_an_earlier_start_is_counted_once(make_job: JobFactory) -> None:
    root = make_job(train=5)
    loader = first_pass(root)
    loader.restore_rollover([{"listed": "train-3.jpg"}], root / "carried")
    assert [len(batch) for batch in loader.training_epoch(1)] == [2, 2, 2]  # the one carried over, and all five
    assert report(root)["channels"]["train"]["pairs"] == 5
    assert report(root)["channels"]["train"]["classes"][1]["pixels"] == sum(
        int((np.asarray(Image.open(path)) == 1).sum()) for path in (root / "input/data/train_annotation").iterdir()
    )


def test_classes_of_files_can_be_counted_before_the_first_pass(make_job: JobFactory) -> None:
    root = make_job(train=5)
    repaint(root, "train", halves(0, 1))
    (root / "input/data/train_annotation/train-4.png").write_bytes(b"no image")
    _, _, audit = opened(root)
    assert audit.class_counts("train") is None
    audit.count_classes("train", threading.Event())
    # four annotations of 40 × 48, a quarter of the first class
    assert audit.class_counts("train") == ClassCounts([4 * 480, 4 * 1440], [4 * 1920] * 2)


def test_samples_that_will_be_skipped_are_not_counted(make_job: JobFactory) -> None:
    root = make_job(train=5, _max_bad_records="2")
    repaint(root, "train", halves(0, 1))
    (root / "input/data/train/train-0.jpg").write_bytes(b"no image")
    path = root / "input/data/train_annotation/train-1.png"
    beyond = np.asarray(Image.open(path)).copy()
    beyond[0, 0] = 9
    Image.fromarray(beyond).save(path)
    _, _, audit = opened(root)
    audit.count_classes("train", threading.Event())
    assert audit.class_counts("train") == ClassCounts([3 * 480, 3 * 1440], [3 * 1920] * 2)
