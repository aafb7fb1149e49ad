"""Pipe mode through real FIFOs, written by other processes."""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import mxnet as mx
import numpy as np
import pytest
from PIL import Image

from container.data.channels import check_channels
from container.data.labels.color_maps import ColorMaps
from container.data.labels.label_maps import LabelMap
from container.data.loader import Loader
from container.data.pipe import PipeSample, PipeSamples, ShuffleBuffer, shuffle
from container.data.sample_decoding import decode_sample
from container.data.samples import open_samples
from container.environment import Channel, Environment
from container.errors import ClientError, PlatformError
from container.hyperparameters import load
from tests.conftest import PROGRAM, JobFactory

COLOURS = {
    "0": {"class-name": "ground", "hex-color": "#000000"},
    "1": {"class-name": "square", "hex-color": "#ff8000"},
}
METADATA = json.dumps({"internal-color-map": COLOURS, "type": "groundtruth/semantic-segmentation"}).encode()


def image(value: int, kind: str = "JPEG") -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (24, 16), (value, value, value)).save(stream, kind)
    return stream.getvalue()


def annotation(value: int, palette: Sequence[int] = ()) -> bytes:
    stream = io.BytesIO()
    mask = Image.new("P" if palette else "L", (24, 16), value)
    if palette:
        mask.putpalette(list(palette))
    mask.save(stream, "PNG")
    return stream.getvalue()


def stream_of(records: Sequence[bytes], path: Path) -> Path:
    """Write a RecordIO file with MXNet's own writer."""
    writer = mx.recordio.MXRecordIO(str(path), "w")
    for record in records:
        writer.write(record)
    writer.close()
    return path


def write(source: Path, fifo: Path) -> subprocess.Popen[bytes]:
    """Make a FIFO and have another process write a file into it."""
    if not fifo.exists():
        os.mkfifo(fifo)
    return subprocess.Popen(["sh", "-c", 'exec cat "$0" > "$1"', str(source), str(fifo)])


def samples_of(tmp_path: Path, timeout: float = 20) -> PipeSamples:
    channel = Channel("train", tmp_path / "train", "Pipe", record_wrapper="RecordIO")
    return PipeSamples(channel, LabelMap(), ShuffleBuffer(100, 2**20), timeout)


def a_pass(samples: PipeSamples) -> list[PipeSample]:
    return list(samples.epoch(None, threading.Event()))


PAIRS = [record for value in range(5) for record in (image(value * 10), annotation(value))]


def test_each_pass_reads_the_next_fifo_whenever_it_comes(tmp_path: Path) -> None:
    stream = stream_of(PAIRS, tmp_path / "stream")
    samples = samples_of(tmp_path)
    for number in range(3):
        timer = threading.Timer(0.3, write, (stream, tmp_path / f"train_{number}"))
        timer.start()
        read = a_pass(samples)
        timer.join()
        assert [record for sample in read for record in sample.read()] == PAIRS
    assert [sample.name for sample in read[:2]] == ["channel train, record 1", "channel train, record 3"]


def test_gzip_is_undone(tmp_path: Path) -> None:
    stream = stream_of(PAIRS, tmp_path / "stream")
    stream.write_bytes(gzip.compress(stream.read_bytes()))
    write(stream, tmp_path / "train_0")
    assert [record for sample in a_pass(samples_of(tmp_path)) for record in sample.read()] == PAIRS


def test_a_pass_that_is_left_early_leaves_no_writer_blocked(tmp_path: Path) -> None:
    big = [record + os.urandom(2**20) for record in (image(1), annotation(1))]
    writer = write(stream_of(big * 32, tmp_path / "stream"), tmp_path / "train_0")
    passing = samples_of(tmp_path).epoch(None, threading.Event())
    next(passing)
    assert writer.poll() is None  # it waits for room in the pipe
    passing.close()
    assert writer.wait(timeout=20) != 0  # and is told that nobody reads any more


def test_a_writer_killed_within_a_record_is_named(tmp_path: Path) -> None:
    content = stream_of(PAIRS, tmp_path / "stream").read_bytes()
    (tmp_path / "stream").write_bytes(content[:-40])
    write(tmp_path / "stream", tmp_path / "train_0")
    with pytest.raises(PlatformError, match=r"channel train, after record 8: the stream ends at byte \d+, within"):
        a_pass(samples_of(tmp_path))


def test_a_silent_writer_and_a_missing_fifo_end_at_the_deadline(tmp_path: Path) -> None:
    with pytest.raises(PlatformError, match=r"channel train: .*/train_0 had no data for 1 s after record 0"):
        a_pass(samples_of(tmp_path, timeout=1))
    stream = stream_of(PAIRS[:6], tmp_path / "stream")
    os.mkfifo(tmp_path / "train_0")
    silent = subprocess.Popen(
        ["sh", "-c", 'exec > "$1"; cat "$0"; exec sleep 600', str(stream), str(tmp_path / "train_0")]
    )
    try:
        with pytest.raises(PlatformError, match=r"for 1 s after record 6\. The process that writes it"):
            a_pass(samples_of(tmp_path, timeout=1))
    finally:
        silent.kill()
        silent.wait()


@pytest.mark.parametrize(
    ("records", "reason"),
    [
        ([], r"channel train: .*/train_0 contains no records\. Make sure that the manifest is not empty"),
        (
            PAIRS[:-1],
            r"channel train, record 9: the stream ends within a sample\. .* list image and annotation in Attr",
        ),
        (
            [image(1), image(2)],
            r"channel train: the annotation, record 2, is a JPEG\. If the stream is an S3 prefix of images, it has no",
        ),
        (
            [annotation(1), image(2)],
            r"record 2, is a JPEG\. The image and the annotation are exchanged: list image and",
        ),
        ([image(1), METADATA], r"channel train, record 1: the stream ends within a sample\. .* list image and"),
        ([image(1), METADATA] * 2, r"has 2 records: record 1 is a JPEG image, record 2 is JSON\. In AttributeNames"),
        ([image(1), annotation(1), b"0.5"] * 4, r"has 3 records: .*, record 3 is text \('0\.5'\)\. In AttributeNames"),
        (
            [image(1), annotation(1), b'{"internal-color-map": 3}'],
            r"channel train, record 1: the metadata of the annotation cannot be read",
        ),
    ],
)
def test_wrong_attributes_are_named_with_the_remedy(tmp_path: Path, records: list[bytes], reason: str) -> None:
    write(stream_of(records, tmp_path / "stream"), tmp_path / "train_0")
    with pytest.raises(ClientError, match=reason):
        a_pass(samples_of(tmp_path))


def test_a_stream_cut_off_within_its_first_records_is_named_after_the_samples_before(tmp_path: Path) -> None:
    content = stream_of(PAIRS[:4], tmp_path / "stream").read_bytes()
    (tmp_path / "stream").write_bytes(content[:-40])
    write(tmp_path / "stream", tmp_path / "train_0")
    passing = samples_of(tmp_path).epoch(None, threading.Event())
    assert next(passing).read() == (PAIRS[0], PAIRS[1])
    with pytest.raises(PlatformError, match=r"channel train, after record 2: the stream ends at byte \d+, within"):
        next(passing)


def test_a_record_that_is_no_image_is_named(tmp_path: Path) -> None:
    write(stream_of([image(1), annotation(1), b"text", annotation(0)], tmp_path / "stream"), tmp_path / "train_0")
    samples = samples_of(tmp_path)
    first, second = a_pass(samples)
    decode_sample(first, samples.label_map, 2)
    with pytest.raises(ClientError, match="channel train, record 3: this is neither a JPEG nor a PNG image, but "):
        decode_sample(second, samples.label_map, 2)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_ground_truth_metadata_is_found_by_its_content_and_repairs_masks(tmp_path: Path, place: int) -> None:
    # index 7 has the color of class 1: such masks were made between June and September 2020
    palette = [0, 0, 0] * 7 + [255, 128, 0]
    records: list[bytes] = []
    for sample in ([image(1), annotation(7, palette)], [image(2), annotation(0, palette)]):
        sample.insert(place, METADATA)
        records += sample
    write(stream_of(records, tmp_path / "stream"), tmp_path / "train_0")
    samples = samples_of(tmp_path)
    labels = [decode_sample(sample, samples.label_map, 2)[1] for sample in a_pass(samples)]
    assert [np.unique(each).tolist() for each in labels] == [[1], [0]]
    assert samples.color_map is not None
    assert samples.color_map.names == {0: "ground", 1: "square"}
    assert samples.color_map.colors == {0: (0, 0, 0), 1: (255, 128, 0)}


def test_rgb_masks_follow_ground_truths_colors(tmp_path: Path) -> None:
    stream = io.BytesIO()
    Image.new("RGB", (24, 16), (255, 128, 0)).save(stream, "PNG")
    write(stream_of([image(1), stream.getvalue(), METADATA], tmp_path / "stream"), tmp_path / "train_0")
    samples = samples_of(tmp_path)
    (sample,) = a_pass(samples)
    assert np.unique(decode_sample(sample, samples.label_map, 2).labels).tolist() == [1]


def test_channels_whose_metadata_contradict_each_other_are_named(tmp_path: Path) -> None:
    maps = ColorMaps()
    others = METADATA.replace(b"square", b"circle")
    for channel, metadata in (("train", METADATA), ("validation", others)):
        write(stream_of([image(1), annotation(1), metadata], tmp_path / channel), tmp_path / f"{channel}_0")
    samples = [
        PipeSamples(
            Channel(name, tmp_path / name, "Pipe", record_wrapper="RecordIO"), LabelMap(), ShuffleBuffer(1, 1), 20, maps
        )
        for name in ("train", "validation")
    ]
    a_pass(samples[0])
    reason = (
        "^Class 1 is circle in channel validation, record 1, but square in channel train, record 1. Use images that "
    )
    with pytest.raises(ClientError, match=reason):
        a_pass(samples[1])


def test_without_a_record_wrapper_the_remedy_is_named(tmp_path: Path) -> None:
    channel = Channel("train", tmp_path / "train", "Pipe", record_wrapper="None")
    with pytest.raises(
        ClientError,
        match=r"channel train is in Pipe mode with RecordWrapperType None.*Set RecordWrapperType to RecordIO",
    ):
        PipeSamples(channel, LabelMap(), ShuffleBuffer(1, 1), 1)


def numbered() -> Iterator[PipeSample]:
    return (PipeSample(str(number), b"i" * 60, b"a" * 40) for number in range(100))


@pytest.mark.parametrize(("buffer", "ahead"), [(ShuffleBuffer(10, 10**9), 10), (ShuffleBuffer(1000, 700), 7)])
def test_shuffling_holds_back_no_more_than_its_bounds(buffer: ShuffleBuffer, ahead: int) -> None:
    order = [int(sample.name) for sample in shuffle(numbered(), buffer, np.random.default_rng(0))]
    assert sorted(order) == list(range(100)) != order
    assert all(number <= position + ahead for position, number in enumerate(order))


def feed(root: Path, *options: str, command: Sequence[str] = (), **variables: str) -> subprocess.CompletedProcess[str]:
    """Turn the job's directories into manifests and run it below the feeder, as a person would."""
    environment = {**os.environ, "SAGEMAKER_BASE_DIR": str(root), **variables}
    subprocess.run(
        [sys.executable, "-m", "local_test.convert", "directories", str(root / "input/data")], check=True, cwd=PROGRAM
    )
    feeder = [sys.executable, "-m", "local_test.pipe_feeder", "--root", str(root), *options]
    for channel in ("train", "validation"):
        if f"--file-channel={channel}" not in options:
            feeder.append(f"--channel={channel}={root}/input/{channel}.manifest")
    return subprocess.run(
        [*feeder, "--", sys.executable, *(command or [str(PROGRAM / "train")])],
        capture_output=True,
        text=True,
        cwd=PROGRAM,
        env=environment,
        timeout=300,
    )


def test_file_and_pipe_give_the_same_first_batch(make_job: JobFactory, tmp_path: Path) -> None:
    root = make_job(train=6, _shuffle_buffer="0")
    job = load(Environment.read(root).hyperparameters)
    from_files = Loader(open_samples(Environment.read(root), "train", job), job, threading.Event())
    expected = list(from_files.training_epoch(0))
    program = (
        "import sys, threading, numpy; from pathlib import Path; sys.path.insert(0, sys.argv[2]);"
        "from container.environment import Environment; from container.data.loader import Loader;"
        "from container.data.samples import open_samples; from container.hyperparameters import load;"
        "env = Environment.read(Path(sys.argv[1])); job = load(env.hyperparameters);"
        "made = list(Loader(open_samples(env, 'train', job), job, threading.Event()).training_epoch(0));"
        "numpy.savez(sys.argv[1] + '/made', *[a for b in made for a in (b.images, b.labels)])"
    )
    feeding = feed(root, command=["-c", program, str(root), str(PROGRAM)])
    assert feeding.returncode == 0, feeding.stderr
    with np.load(root / "made.npz") as made:
        arrays = [made[f"arr_{index}"] for index in range(len(made.files))]
    assert len(arrays) == 2 * len(expected) == 6
    for index, batch in enumerate(expected):
        assert np.array_equal(arrays[2 * index], batch.images)
        assert np.array_equal(arrays[2 * index + 1], batch.labels)


def test_a_streamed_job_trains_validates_and_is_scored(make_job: JobFactory) -> None:
    root = make_job(train=4, epochs="2", num_training_samples="400")
    feeding = feed(root, "--shuffle", "--gzip")
    assert feeding.returncode == 0, feeding.stdout + feeding.stderr
    report = json.loads((root / "output/data/report.json").read_text())
    assert len(report["epochs"]) == 2
    assert report["validation"]["images"] == 3
    said = "num_training_samples is 400, but the first epoch trained on 4 samples"
    assert feeding.stdout.count(said) == 1
    assert not list((root / "input/data").glob("*_[0-9]*"))  # no FIFO is left, and the feeder has ended


def test_a_streamed_job_counts_its_classes_in_the_first_pass_and_scores_whole_images(make_job: JobFactory) -> None:
    root = make_job(
        train=4,
        epochs="2",
        backbone="resnet-18",
        _class_weights="balanced",
        _loss="ohem",
        _rare_crops="0.5",
        _validation="full",
        _ema="0.9",
        _accumulate="2",
    )
    feeding = feed(root)
    assert feeding.returncode == 0, feeding.stdout + feeding.stderr
    assert feeding.stdout.count("_class_weights=balanced begins after the first pass") == 1
    assert feeding.stdout.index("begins after") < feeding.stdout.index("_class_weights=balanced: 0: ")
    report = json.loads((root / "output/data/report.json").read_text())
    # the best weights, on the same pixels: scored by MXNet after its epoch, and by OpenVINO at the end
    best = max(entry["mIOU"] for entry in report["epochs"])
    assert report["validation"]["mIOU"] == pytest.approx(best, abs=0.01)
    assert report["validation"]["images"] == 3
    iou = dict(re.findall(r"epoch: 1, validation IOU of class (\d): (\S+) \.", feeding.stdout))
    assert set(iou) == {"0", "1"}
    assert np.mean([float(value) for value in iou.values()]) == pytest.approx(report["epochs"][1]["mIOU"])


def test_a_stream_of_binary_masks_ends_after_its_first_pass_with_nothing_written(make_job: JobFactory) -> None:
    root = make_job(train=4, epochs="2")
    for path in (root / "input/data/train_annotation").iterdir():
        Image.fromarray(np.where(np.asarray(Image.open(path)) == 1, 255, 0).astype(np.uint8)).save(path)
    feeding = feed(root)
    assert feeding.returncode == 1
    failure = (root / "output/failure").read_text()
    assert failure.startswith("ClientError: All labeled pixels of channel train_annotation have one class, 0, so ")
    assert "train loss" not in feeding.stdout
    assert "validation mIOU" not in feeding.stdout
    assert not list((root / "model").glob("model*"))
    assert json.loads((root / "output/data/audit.json").read_text())["channels"]["train"]["opened"] == 4


def test_a_stopped_early_job_leaves_no_writer_blocked_and_bad_records_are_skipped(make_job: JobFactory) -> None:
    settings = {"early_stopping": "True", "early_stopping_min_epochs": "1", "early_stopping_patience": "1"}
    root = make_job(train=5, epochs="50", learning_rate="1e-9", _max_bad_records="1", **settings)
    (root / "input/data/train/train-1.jpg").write_bytes(b"no image")
    feeding = feed(root, "--file-channel=validation", "--file-channel=validation_annotation")
    assert feeding.returncode == 0, feeding.stdout + feeding.stderr
    assert "early stopping after epoch" in feeding.stdout
    assert "skipped: channel train, record 3: this is neither a JPEG nor a PNG image, but " in feeding.stdout
    root = make_job(train=5)
    (root / "input/data/train/train-1.jpg").write_bytes(b"no image")
    feeding = feed(root)
    assert feeding.returncode == 1
    failure = (root / "output/failure").read_text()
    assert failure.startswith("ClientError: channel train, record 3: this is neither a JPEG nor a PNG image, but text")


def test_pipe_channels_need_no_annotation_channels(make_job: JobFactory) -> None:
    root = make_job()
    config = {
        name: {"TrainingInputMode": "Pipe", "RecordWrapperType": "RecordIO", "ContentType": "application/x-recordio"}
        for name in ("train", "validation")
    }
    (root / "input/config/inputdataconfig.json").write_text(json.dumps(config))
    check_channels(Environment.read(root))
