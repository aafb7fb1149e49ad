"""The feeder as a process of its own, read through real FIFOs."""

from __future__ import annotations

import gzip
import json
import os
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import wait_until

DEADLINE = 20.0
MAGIC = struct.pack("<I", 0xCED7230A)


def read_stream(path: Path) -> bytes:
    """Read a FIFO to its end with a process that can be given up."""
    wait_until(path.exists, DEADLINE)
    return subprocess.run(["cat", path], capture_output=True, timeout=DEADLINE, check=True).stdout


def parse(stream: bytes) -> list[bytes]:
    """Cut whole RecordIO records by the format's definition; a payload with the magic word comes in parts."""
    records, offset, parts = [], 0, []
    while offset < len(stream):
        assert stream[offset : offset + 4] == MAGIC
        word = struct.unpack_from("<I", stream, offset + 4)[0]
        kind, length = word >> 29, word & (2**29 - 1)
        parts.append(stream[offset + 8 : offset + 8 + length])
        offset += 8 + length + -length % 4
        if kind in (0, 3):
            records.append(MAGIC.join(parts))
            parts = []
    assert offset == len(stream) and not parts
    return records


class Job:
    """A job's root with a manifest of pairs, and the feeders that were started for it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.data = root / "input" / "data"
        self.started: list[subprocess.Popen[str]] = []

    def write_pairs(self, name: str, count: int, size: int = 5) -> list[bytes]:
        """Write a manifest `name` with `count` pairs; returns the payloads in order."""
        payloads, lines = [], []
        for number in range(count):
            line = {}
            for key, kind in (("source-ref", b"image"), ("annotation-ref", b"label")):
                payload = (b"%s %s %d " % (name.encode(), kind, number)).ljust(size + number, b".")
                path = self.root / f"{name}_{number}_{kind.decode()}"
                path.write_bytes(payload)
                payloads.append(payload)
                line[key] = str(path)
            lines.append(json.dumps(line))
        (self.root / f"{name}.manifest").write_text("\n".join(lines) + "\n")
        return payloads

    def feed(self, *arguments: object, channels: tuple[str, ...] = ("train",)) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "local_test.pipe_feeder", "--root", str(self.root)]
        for name in channels:
            command += ["--channel", f"{name}={self.root / name}.manifest"]
        feeder = subprocess.Popen(
            [*command, *map(str, arguments)], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.started.append(feeder)
        return feeder

    def fifos(self) -> list[str]:
        return sorted(path.name for path in self.data.iterdir())


@pytest.fixture
def job(tmp_path: Path) -> Iterator[Job]:
    job = Job(tmp_path)
    yield job
    for feeder in job.started:
        if feeder.poll() is None:
            feeder.kill()
        feeder.communicate()


def end(feeder: subprocess.Popen[str]) -> tuple[int, str]:
    _, errors = feeder.communicate(timeout=DEADLINE)
    return feeder.returncode, errors


def test_passes_follow_one_another_in_the_manifests_order(job: Job) -> None:
    payloads = job.write_pairs("train", 3)
    job.feed()
    for number in range(3):
        assert parse(read_stream(job.data / f"train_{number}")) == payloads


def test_payload_with_the_magic_word_arrives_whole(job: Job) -> None:
    job.write_pairs("train", 1)
    payload = b"abcd" + MAGIC + b"efg" + MAGIC + b"h"
    (job.root / "train_0_image").write_bytes(payload)
    job.feed()
    assert parse(read_stream(job.data / "train_0"))[0] == payload


def test_channels_are_independent(job: Job) -> None:
    train, validation = job.write_pairs("train", 2, 200_000), job.write_pairs("validation", 3)
    job.feed(channels=("train", "validation"))
    wait_until((job.data / "train_0").exists, DEADLINE)
    with open(job.data / "train_0", "rb") as half_read:
        first = half_read.read(1000)
        assert parse(read_stream(job.data / "validation_0")) == validation
        assert parse(read_stream(job.data / "validation_1")) == validation
        assert parse(first + half_read.read()) == train


def test_next_fifo_is_there_before_the_stream_ends(job: Job) -> None:
    job.write_pairs("train", 2, 200_000)
    job.feed()
    wait_until((job.data / "train_0").exists, DEADLINE)
    with open(job.data / "train_0", "rb") as stream:
        stream.read(1000)
        assert (job.data / "train_1").is_fifo()


def test_reader_that_leaves_early_finds_the_next_pass(job: Job) -> None:
    payloads = job.write_pairs("train", 4, 200_000)
    feeder = job.feed()
    wait_until((job.data / "train_0").exists, DEADLINE)
    with open(job.data / "train_0", "rb") as stream:
        stream.read(10)
    assert parse(read_stream(job.data / "train_1")) == payloads
    assert feeder.poll() is None


def shuffled(job: Job, *arguments: object) -> list[list[bytes]]:
    feeder = job.feed("--shuffle", *arguments)
    passes = [parse(read_stream(job.data / f"train_{number}")) for number in range(2)]
    feeder.terminate()
    assert end(feeder)[0] == 0
    return passes


def test_shuffling_keeps_pairs_and_is_seeded(job: Job) -> None:
    payloads = job.write_pairs("train", 20)
    passes = shuffled(job, "--seed", 3)
    pairs = list(zip(payloads[::2], payloads[1::2], strict=True))
    for stream in passes:
        arrived = list(zip(stream[::2], stream[1::2], strict=True))
        assert arrived != pairs and sorted(arrived) == sorted(pairs)
    assert passes[0] != passes[1]
    assert shuffled(job, "--seed", 3) == passes
    assert shuffled(job, "--seed", 4) != passes


def test_gzip_stream_is_one_members_worth_of_records(job: Job) -> None:
    payloads = job.write_pairs("train", 3, 100_000)
    job.feed("--gzip")
    stream = read_stream(job.data / "train_0")
    assert len(stream) < 10_000
    assert parse(gzip.decompress(stream)) == payloads
    config = json.loads((job.root / "input" / "config" / "inputdataconfig.json").read_text())
    assert config["train"]["CompressionType"] == "Gzip"


def test_attributes_arrive_in_the_order_asked_for_values_as_json(job: Job) -> None:
    job.write_pairs("train", 1)
    manifest = job.root / "train.manifest"
    line = json.loads(manifest.read_text())
    metadata = {"internal-color-map": {"0": {"class-name": "Straße", "hex-color": "#ffffff"}}}
    manifest.write_text(json.dumps({**line, "annotation-ref-metadata": metadata}))
    job.feed("--attributes", "annotation-ref,annotation-ref-metadata,source-ref")
    records = parse(read_stream(job.data / "train_0"))
    assert records[0].startswith(b"train label 0") and records[2].startswith(b"train image 0")
    assert json.loads(records[1]) == metadata


def test_objects_in_s3_are_found_by_the_longest_prefix(job: Job) -> None:
    for folder, content in (("a", b"image"), ("b", b"label")):
        (job.root / folder / "deep").mkdir(parents=True)
        (job.root / folder / "deep" / "x").write_bytes(content)
    line = {"source-ref": "s3://bucket/set/deep/x", "annotation-ref": "s3://bucket/set/labels/deep/x"}
    (job.root / "train.manifest").write_text(json.dumps(line))
    job.feed("--map", f"s3://bucket/set={job.root / 'a'}", "--map", f"s3://bucket/set/labels/={job.root / 'b'}")
    assert parse(read_stream(job.data / "train_0")) == [b"image", b"label"]


def test_termination_leaves_no_fifo_and_no_blocked_reader(job: Job) -> None:
    job.write_pairs("train", 2)
    feeder = job.feed()
    read_stream(job.data / "train_0")
    feeder.send_signal(signal.SIGTERM)
    assert end(feeder) == (0, "")
    assert job.fifos() == []


def test_reader_waiting_at_a_fifo_is_let_go(job: Job) -> None:
    """The reader may be caught in open(), or may be given a pass first: it has to end either way."""
    job.write_pairs("train", 1)
    feeder = job.feed()
    wait_until((job.data / "train_0").exists, DEADLINE)
    reader = threading.Thread(target=lambda: (job.data / "train_0").read_bytes(), daemon=True)
    reader.start()
    feeder.terminate()
    assert end(feeder)[0] == 0
    reader.join(DEADLINE)
    assert not reader.is_alive()
    assert job.fifos() == []


def test_termination_in_mid_record_ends_the_stream(job: Job) -> None:
    payloads = job.write_pairs("train", 2, 1_000_000)
    feeder = job.feed()
    wait_until((job.data / "train_0").exists, DEADLINE)
    with open(job.data / "train_0", "rb") as stream:
        read = len(stream.read(1000))
        feeder.terminate()
        assert end(feeder)[0] == 0
        read += len(stream.read())
    assert read < sum(map(len, payloads))
    assert job.fifos() == []


def test_fifos_of_a_killed_feeder_are_replaced(job: Job) -> None:
    payloads = job.write_pairs("train", 1)
    killed = job.feed()
    wait_until((job.data / "train_0").exists, DEADLINE)
    killed.kill()
    killed.wait()
    os.mkfifo(job.data / "train_1")
    job.feed()
    wait_until(lambda: not (job.data / "train_1").exists(), DEADLINE)
    for number in range(2):
        assert parse(read_stream(job.data / f"train_{number}")) == payloads


def test_configuration_names_streamed_and_filed_channels(job: Job) -> None:
    job.write_pairs("train", 1)
    job.feed("--file-channel", "validation", "--file-channel", "validation_annotation")
    wait_until((job.data / "train_0").exists, DEADLINE)
    config = json.loads((job.root / "input" / "config" / "inputdataconfig.json").read_text())
    assert {name: channel["TrainingInputMode"] for name, channel in config.items()} == {
        "train": "Pipe",
        "validation": "File",
        "validation_annotation": "File",
    }
    assert (config["train"]["RecordWrapperType"], config["train"]["CompressionType"]) == ("RecordIO", "None")


def test_command_reads_the_stream_and_its_exit_code_is_the_feeders(job: Job) -> None:
    payloads = job.write_pairs("train", 2)
    copy = job.root / "copy"
    feeder = job.feed("--", "sh", "-c", f"cat {job.data}/train_0 > {copy}; exit 7")
    assert end(feeder)[0] == 7
    assert parse(copy.read_bytes()) == payloads
    assert job.fifos() == []


def test_sigterm_is_the_commands(job: Job) -> None:
    job.write_pairs("train", 1)
    started = job.root / "started"
    script = f"trap 'exit 5' TERM; touch {started}; while :; do sleep 0.1; done"
    feeder = job.feed("--", "sh", "-c", script)
    wait_until(started.exists, DEADLINE)
    feeder.terminate()
    assert end(feeder)[0] == 5


def test_file_that_goes_away_while_feeding_ends_the_job_by_name(job: Job) -> None:
    job.write_pairs("train", 2)
    script = f"while [ ! -e {job.root}/go ]; do sleep 0.1; done; cat {job.data}/train_0 > /dev/null; exec sleep 60"
    feeder = job.feed("--", "sh", "-c", script)
    wait_until((job.data / "train_0").exists, DEADLINE)
    (job.root / "train_1_label").unlink()
    (job.root / "go").touch()
    code, errors = end(feeder)
    assert code == 1
    assert "train.manifest, line 2, annotation-ref" in errors and "train_1_label" in errors
    assert job.fifos() == []


@pytest.mark.parametrize(
    ("second_line", "complaint"),
    [
        ('{"caption": "a"}', "line 2, source-ref: the key does not exist. The keys are caption"),
        ("{", "line 2 is not valid JSON"),
        ("[" + " " * 2**20, "line 2 has more than 1048576 bytes"),
        ("[1]", "line 2 is not a JSON object"),
        ('{"source-ref": 5, "annotation-ref": "b"}', "line 2, source-ref: a reference must be a string, not 5"),
        ('{"source-ref": "/none.jpg", "annotation-ref": "b"}', "line 2, source-ref: the file /none.jpg does not exist"),
        ('{"source-ref": "s3://b/x", "annotation-ref": "b"}', "line 2, source-ref: no --map contains a prefix of s3://b/x"),
    ],
)
def test_manifest_errors_name_line_and_key(job: Job, second_line: str, complaint: str) -> None:
    job.write_pairs("train", 1)
    manifest = job.root / "train.manifest"
    manifest.write_text(manifest.read_text() + second_line + "\n")
    code, errors = end(job.feed())
    assert code == 1
    assert f"pipe_feeder: {manifest}, " in errors and complaint in errors
    assert "Traceback" not in errors
    assert job.fifos() == []


def test_empty_and_absent_manifests_are_named(job: Job) -> None:
    code, errors = end(job.feed())
    assert code == 1 and "train.manifest" in errors and "Traceback" not in errors
    (job.root / "train.manifest").write_text("\n")
    code, errors = end(job.feed())
    assert code == 1 and "train.manifest is empty" in errors
