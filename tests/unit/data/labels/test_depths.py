"""Gray annotations of several bit depths: white is white, or one error names the files and a fix that works."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from container.cluster.agreement import check_depths
from container.data.audit.audit import Audit
from container.data.labels.label_maps import LabelMap
from container.data.loader import Loader
from container.data.pipe import PipeSample
from container.data.samples import open_samples
from container.environment import Environment
from container.errors import ClientError
from container.hyperparameters import load
from container.training import run
from tests.conftest import JobFactory
from tests.pictures import png, save

HEIGHT, WIDTH = 40, 48
PHOTO = save(Image.new("RGB", (WIDTH, HEIGHT)), "JPEG")


def mask(*values: int) -> np.ndarray:
    """Stripes of the values, from left to right; the first has half of the columns."""
    columns = np.full(WIDTH, values[0], np.uint16)
    for place, value in enumerate(values[1:]):
        columns[WIDTH // 2 + 4 * place : WIDTH // 2 + 4 * place + 4] = value
    return np.tile(columns, (HEIGHT, 1))


def gray(bits: int, *numbers: int) -> bytes:
    """A gray PNG that stores these numbers in `bits`, packed by hand."""
    pixels = mask(*numbers)
    if bits == 16:
        rows = [b"\0" + row.astype(">u2").tobytes() for row in pixels]
    else:
        digits = (pixels[:, :, None] >> np.arange(bits - 1, -1, -1)) & 1
        rows = [b"\0" + np.packbits(row.reshape(-1)).tobytes() for row in digits.astype(np.uint8)]
    return png(WIDTH, HEIGHT, bits, 0, b"".join(rows))


def palette(bits: int, *indices: int) -> bytes:
    image = Image.fromarray(mask(*indices).astype(np.uint8), "P")
    image.putpalette([255, 255, 255, 0, 0, 0] * 8)
    return save(image, bits=bits)


def job(make_job: JobFactory, *annotations: bytes, validation: tuple[bytes, ...] = (), **changes: Any) -> Path:
    """A job whose channels have these annotations, in turn; `validation` has those of train unless given."""
    count = max(4, len(annotations))
    root = make_job(train=count, validation=count, **changes)
    for channel, given in (("train", annotations), ("validation", validation or annotations)):
        for number in range(count):
            path = root / f"input/data/{channel}_annotation/{channel}-{number}.png"
            path.write_bytes(given[number % len(given)])
    return root


def with_map(root: Path, content: object) -> Path:
    for channel in ("train", "validation"):
        path = root / f"input/data/label_map/{channel}_label_map.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content))
    return root


def audit(root: Path) -> dict[str, Any]:
    """Do what a job does until it would train; returns audit.json."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "train", lambda *arguments: True)
        run.run(Environment.read(root), threading.Event())
    found: dict[str, Any] = json.loads((root / "output/data/audit.json").read_text())
    return found


def columns(root: Path, channel: str = "train") -> list[int]:
    """Columns of each class, then those that are ignored, over all annotations of a channel."""
    found = audit(root)["channels"][channel]
    ignored = round(found["ignored_share"] * found["pairs"] * WIDTH)
    return [*(entry["pixels"] // HEIGHT for entry in found["classes"]), ignored]


def refusal(root: Path) -> ClientError:
    with pytest.raises(ClientError) as caught:
        audit(root)
    return caught.value


def suggestions(error: ClientError) -> list[dict[str, Any]]:
    """All label maps in an error, first to last."""
    found = []
    for start in re.finditer(r'\{"(map|colors)"', str(error)):
        found.append(json.JSONDecoder().raw_decode(str(error)[start.start() :])[0])
    return found


def test_one_bit_alone_has_the_classes_0_and_1(make_job: JobFactory) -> None:
    assert columns(job(make_job, gray(1, 0, 1), gray(1, 0))) == [4 * 48 - 2 * 4, 2 * 4, 0]


@pytest.mark.parametrize("depth", [2, 4, 16])
def test_class_ids_in_another_depth_are_class_ids_next_to_8_bits(make_job: JobFactory, depth: int) -> None:
    root = job(make_job, gray(depth, 0, 1, 2), gray(8, 0, 1, 2, 255), num_classes="3")
    assert columns(root) == [4 * 48 - 4 * 8 - 2 * 4, 16, 16, 8]


@pytest.mark.parametrize(
    ("annotation", "content", "num_classes", "expected"),
    [
        (gray(1, 0, 1), {"map": {"0": 0, "1": 255}}, 2, [44, 4, 0]),
        (gray(1, 0, 1), {"scale": 255}, 2, [44, 4, 0]),
        (gray(1, 0, 1), {"scale": 128}, 2, [44, 4, 0]),
        (gray(1, 0, 1), {"map": {"0": 0, "1": 1}}, 2, [44, 4, 0]),
        (gray(1, 0, 1), {"map": {"1": 0, "0": 1}}, 2, [4, 44, 0]),
        (gray(1, 0, 1), {"colors": {"#000000": 0, "#ffffff": 1}}, 2, [44, 4, 0]),
        (gray(2, 0, 1, 2, 3), {"map": {"0": 0, "1": 85, "2": 170, "3": 255}}, 4, [36, 4, 4, 4, 0]),
        (gray(2, 0, 1, 2, 3), {"scale": 85}, 4, [36, 4, 4, 4, 0]),
        (gray(4, 0, 1, 15), {"map": {"0": 0, "1": 17}}, 2, [40, 4, 4]),
        (gray(16, 0, 65535), {"map": {"0": 0, "1": 255}}, 2, [44, 4, 0]),
        (gray(16, 0, 65535), {"map": {"0": 0, "1": 65535}}, 2, [44, 4, 0]),
        (gray(16, 0, 65535), {"colors": {"#000000": 0, "#ffffff": 1}}, 2, [44, 4, 0]),
        (gray(16, 0, 1000), {"map": {"0": 0, "1": 1000}}, 2, [44, 4, 0]),
        (gray(16, 0, 257, 514, 65535), None, 3, [36, 4, 4, 4]),
        (palette(1, 0, 1), None, 2, [44, 4, 0]),
        (palette(4, 0, 1, 3), {"map": {"0": 0, "1": 3}}, 2, [40, 4, 4]),
    ],
)
def test_the_label_map_decides_what_one_depth_means(
    make_job: JobFactory, annotation: bytes, content: object, num_classes: int, expected: list[int]
) -> None:
    root = job(make_job, annotation, num_classes=str(num_classes))
    if content:
        with_map(root, content)
    assert columns(root) == [4 * number for number in expected]


@pytest.mark.parametrize(
    ("content", "num_classes", "annotations", "expected"),
    [
        ({"map": {"0": 0, "1": 255}}, 2, [gray(1, 0, 1), gray(8, 0, 255)], [4 * 44, 16, 0]),
        ({"map": {"0": 0, "1": 255}}, 2, [gray(1, 0, 1), gray(16, 0, 65535)], [4 * 44, 16, 0]),
        ({"map": {"0": 0, "1": [1, 255]}}, 2, [gray(1, 0, 1), gray(8, 0, 255), gray(8, 0, 1)], [4 * 44, 16, 0]),
        ({"map": {"0": 0, "1": 2}}, 2, [gray(1, 0, 1), gray(8, 0, 2, 255)], [2 * 44 + 2 * 40, 8, 16]),
        ({"scale": 255}, 2, [gray(1, 0, 1), gray(8, 0, 255)], [4 * 44, 16, 0]),
        ({"scale": 10}, 3, [gray(1, 0, 1), gray(8, 0, 10, 20, 255)], [2 * 44 + 2 * 36, 8, 8, 16]),
        (
            {"map": {"0": 0, "1": 85, "2": 170, "3": 255}},
            4,
            [gray(8, 0, 85, 170, 255), gray(2, 0, 1, 2, 3), gray(1, 0, 1), gray(4, 0, 5, 10, 15)],
            [3 * 36 + 44, 12, 12, 16, 0],
        ),
        (None, 2, [gray(1, 0, 1), palette(1, 0, 1), palette(8, 0, 1)], [4 * 44, 16, 0]),
        (None, 2, [gray(1, 0, 1), gray(8, 0)], [2 * 44 + 2 * 48, 8, 0]),
        (None, 4, [gray(2, 0, 1, 2, 3), gray(8, 0, 1, 255)], [2 * 36 + 2 * 40, 16, 8, 8, 8]),
    ],
)
def test_depths_that_the_map_explains_are_read_together(
    make_job: JobFactory, content: object, num_classes: int, annotations: list[bytes], expected: list[int]
) -> None:
    while len(annotations) < 4 and 4 % len(annotations):
        annotations = [*annotations, annotations[0]]
    root = job(make_job, *annotations, num_classes=str(num_classes))
    if content:
        with_map(root, content)
    assert columns(root) == expected


def test_a_mixed_channel_is_refused_with_its_files_and_a_map_of_colors(make_job: JobFactory) -> None:
    root = job(make_job, gray(8, 0, 1, 2), gray(1, 0, 1), num_classes="3")
    train = root / "input/data/train"
    error = refusal(root)
    assert error.message == (
        "channel train has gray annotations of 1 bit and 8 bits, and white in 1 bit can mean pixel value 1 or 255. "
        f"The annotations of these images have 1 bit: {train}/train-1.jpg, {train}/train-3.jpg. Do one of the "
        'following: (1) Put {"colors": {"#000000": 0, "#010101": 1, "#020202": 2, "#ffffff": 255}}, with the label of '
        'white as "#ffffff" (255: ignored), into label_map/<channel>_label_map.json for each of the channels train, '
        "validation (and test). (2) Save these annotations with 8 bits and the pixel value that white means, for "
        "example 255 with Pillow: Image.open(path).convert('L').save(path)"
    )
    assert list(error.details) == [f"{train}/train-1.jpg", f"{train}/train-3.jpg"]
    (content,) = suggestions(error)
    assert columns(with_map(root, content)) == [2 * 40 + 2 * 44, 8, 8, 8]
    content["colors"]["#ffffff"] = 1
    assert columns(with_map(root, content)) == [2 * 40 + 2 * 44, 16, 8, 0]


def test_the_other_fix_is_to_save_with_8_bits(make_job: JobFactory) -> None:
    root = job(make_job, gray(8, 0, 1, 2), gray(1, 0, 1), num_classes="3")
    refusal(root)
    for path in (root / "input/data").glob("*_annotation/*.png"):
        Image.open(path).convert("L").save(path)
    assert columns(root) == [2 * 40 + 2 * 44, 8, 8, 8]


MIXED = [
    (None, 2, [gray(1, 0, 1), gray(8, 0, 255)]),
    (None, 2, [gray(1, 0, 1), gray(8, 0, 1)]),
    (None, 2, [gray(1, 0, 1), gray(8, 0, 1, 255)]),
    ({"map": {"0": 0, "1": 1}}, 2, [gray(1, 0, 1), gray(8, 0, 1, 255)]),
    ({"map": {"0": 0, "1": 1, "255": 255}}, 2, [gray(1, 0, 1), gray(8, 0, 1, 255)]),
    (None, 4, [gray(2, 0, 3), gray(8, 0, 1, 2, 3)]),
    (None, 4, [gray(1, 0, 1), gray(2, 0, 3)]),
    (None, 4, [gray(1, 0, 1), gray(2, 0, 1, 2)]),
    (None, 4, [gray(2, 0, 1, 2, 3), gray(8, 0, 255)]),
    (None, 4, [gray(2, 0, 1, 2, 3), gray(4, 0, 15)]),
    (None, 16, [gray(4, 0, 15), gray(8, 0, 15, 255)]),
    (None, 3, [gray(1, 0, 1), gray(16, 0, 1, 2)]),
    ({"map": {"0": 0, "1": 65535}}, 2, [gray(16, 0, 65535), gray(8, 0, 255)]),
]
ALONE = [
    ({"map": {"255": 1, "0": 0}}, 2, [gray(1, 0, 1)]),
    ({"map": {"0": 0, "1": 128}}, 2, [gray(1, 0, 1)]),
    ({"map": {"0": 0, "1": 128}}, 2, [gray(2, 0, 3)]),
    (None, 4, [gray(2, 0, 1, 2, 3), gray(8, 0, 85, 170)]),
    (None, 2, [gray(16, 0, 65535), gray(8, 0, 255)]),
    (None, 2, [gray(8, 0, 128)]),
    ({"map": {"0": 3, "1": 4}}, 2, [gray(8, 0, 128)]),
    ({"scale": 300}, 2, [gray(8, 0, 255)]),
]


@pytest.mark.parametrize(("content", "num_classes", "annotations"), MIXED)
def test_depths_that_nothing_explains_are_refused(
    make_job: JobFactory, content: object, num_classes: int, annotations: list[bytes]
) -> None:
    root = job(make_job, *annotations, num_classes=str(num_classes))
    if content:
        with_map(root, content)
    error = refusal(root)
    assert re.search(r"^channel train has gray annotations of .* bits?, and white in .* can mean pixel", error.message)
    assert "/input/data/train/train-0.jpg" in error.message and "Save these annotations with 8 bits" in error.message


@pytest.mark.parametrize(("content", "num_classes", "annotations"), MIXED + ALONE)
def test_every_suggested_map_works(
    make_job: JobFactory, content: object, num_classes: int, annotations: list[bytes]
) -> None:
    root = job(make_job, *annotations, num_classes=str(num_classes))
    if content:
        with_map(root, content)
    found = suggestions(refusal(root))
    assert found
    for suggestion in found:
        used = columns(with_map(root, suggestion))[:-1]
        assert sum(number > 0 for number in used) > 1, suggestion


def test_a_suggested_map_names_the_label_of_white_and_reads_each_depth(make_job: JobFactory) -> None:
    root = job(make_job, gray(1, 0, 1), gray(2, 0, 1, 2), num_classes="3")
    error = refusal(root)
    assert "with the label of white" in error.message
    (content,) = suggestions(error)
    assert content == {"colors": {"#000000": 0, "#555555": 1, "#aaaaaa": 2, "#ffffff": 255}}
    content["colors"]["#ffffff"] = 1
    assert columns(with_map(root, content)) == [2 * 44 + 2 * 40, 16, 8, 0]


@pytest.mark.parametrize("wrong", [[gray(8, 0, 1, 7)], [gray(8, 0, 7), gray(8, 0, 1, 2)]])
def test_mixed_depths_and_wrong_values_are_reported_together(make_job: JobFactory, wrong: list[bytes]) -> None:
    error = refusal(job(make_job, gray(1, 0, 1), *wrong, gray(1, 0, 1), num_classes="3"))
    assert error.message.startswith("channel train has gray annotations of 1 bit and 8 bits")
    assert any("pixel value 7 is not a valid class ID" in detail for detail in error.details)
    assert '{"colors"' not in error.message  # a map of the classes would ignore the value 7


def test_an_annotation_that_is_skipped_contradicts_no_depth(make_job: JobFactory) -> None:
    root = job(make_job, *[gray(1, 0, 1)] * 3, gray(8, 0, 7), _max_bad_records="1")
    assert columns(root)[:2] == [3 * 44, 3 * 4]


def test_channels_that_differ_in_depth_are_refused_if_one_has_white(make_job: JobFactory) -> None:
    root = job(make_job, gray(1, 0, 1), validation=(gray(8, 0, 255),))
    error = refusal(root)
    assert error.message.startswith("channels train and validation have gray annotations of 1 bit and 8 bits, and")
    assert suggestions(error)[0] == {"map": {"0": 0, "1": 255}}
    assert columns(with_map(root, {"map": {"0": 0, "1": 255}}), "validation") == [4 * 44, 16, 0]


def test_channels_that_agree_in_another_depth_are_read(make_job: JobFactory) -> None:
    root = job(make_job, gray(1, 0, 1), validation=(gray(8, 0, 1),))
    assert columns(root) == columns(root, "validation") == [4 * 44, 16, 0]


def test_the_first_pass_finds_mixed_depths_where_no_audit_did(make_job: JobFactory) -> None:
    root = job(make_job, gray(8, 0, 1, 255), gray(1, 0, 1), _audit="off")
    environment = Environment.read(root)
    hyperparameters = load(environment.hyperparameters)
    samples = open_samples(environment, "train", hyperparameters)
    found = Audit(hyperparameters, {"train": samples}, environment.output_data_dir)
    found.run("off", threading.Event())
    loader = Loader(samples, hyperparameters, threading.Event(), found)
    with pytest.raises(ClientError, match=r"^channel train has gray annotations of 1 bit and 8 bits"):
        list(loader.training_epoch(0))
    assert json.loads((root / "output/data/audit.json").read_text())["errors"][0]["kind"] == "depth"


class Stream:
    """A stream of pairs that counts what has been read of it."""

    channel, color_map = "train", None

    def __init__(self, annotations: list[bytes]) -> None:
        self.label_map, self.read, self._annotations = LabelMap(), 0, annotations

    def listed(self) -> None:
        return None

    def epoch(self, rng: object, stopped: threading.Event) -> Iterator[PipeSample]:
        for number, annotation in enumerate(self._annotations):
            self.read = number
            yield PipeSample(f"channel train, record {2 * number + 1}", PHOTO, annotation)


def test_a_stream_is_refused_by_record_as_soon_as_depths_contradict(make_job: JobFactory) -> None:
    root = make_job(_shuffle_buffer="0", _workers="1")
    hyperparameters = load(Environment.read(root).hyperparameters)
    stream = Stream([gray(1, 0, 1)] * 2 + [gray(8, 0, 255)] + [gray(1, 0, 1)] * 1000)
    found = Audit(hyperparameters, {"train": stream}, root / "output/data")
    with pytest.raises(ClientError, match="have 1 bit: channel train, record 1,"):
        list(Loader(stream, hyperparameters, threading.Event(), found).training_epoch(0))
    assert stream.read < 100


class TwoHosts:
    """Both hosts of a job: the other one has these numbers."""

    def __init__(self, other: list[int]) -> None:
        self.other = other

    def gather(self, *numbers: int) -> list[list[int]]:
        return [list(numbers), self.other]


@pytest.mark.parametrize(("other", "is_mixed"), [([0, 1, 0, 0, 0, 0, 0, 0, 0, 0], False), ([0] * 7 + [1, 0, 0], True)])
def test_shards_of_different_depths_are_refused(make_job: JobFactory, other: list[int], is_mixed: bool) -> None:
    root = job(make_job, gray(1, 0, 1))
    environment = Environment.read(root)
    hyperparameters = load(environment.hyperparameters)
    samples = open_samples(environment, "train", hyperparameters)
    found = Audit(hyperparameters, {"train": samples}, environment.output_data_dir, sharded=["train"])
    found.run("full", threading.Event())
    if not is_mixed:
        check_depths(TwoHosts(other), found, "train")  # type: ignore[arg-type]
        return
    with pytest.raises(ClientError, match=r"^channel train has, on different hosts, gray annotations of 1 bit and 8"):
        check_depths(TwoHosts(other), found, "train")  # type: ignore[arg-type]
